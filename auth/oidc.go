package auth

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// OIDC names an issuer whose ID tokens are taken (OpenID Connect Core 1.0, section 2; Discovery 1.0).
type OIDC struct {
	Issuer        string // URL, as in the claim iss; https, or http on loopback
	Audience      string // that the claim aud must hold
	IdentityClaim string // that names who it is; default sub
	GroupsClaim   string // that lists groups, or is one; "" is none
	CAFile        string // PEM file of authorities that are trusted besides the system's
	// Prefix is what its users' names begin with, and those of its groups behind "group:". "" is "oidc:" for users and nothing for groups; it is
	// for one issuer only.
	Prefix string
}

// prefix is a word and a colon. Of two different ones none begins with the other, so an issuer's names are not another's, whatever its claims
// are; and users of an htpasswd file have no colon.
var prefix = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*:$`)

// CheckPrefix reports what is wrong with the prefix of the n-th issuer beside the others, as the end of a sentence about it.
func CheckPrefix(issuers []OIDC, n int) error {
	p := issuers[n].Prefix
	switch {
	case p == "" && len(issuers) > 1:
		return errors.New("is needed where there is more than one issuer, or one could make up the names of another's users")
	case p == "":
		return nil
	case !prefix.MatchString(p):
		return fmt.Errorf("%q is not a word and a colon, as ci: is", p)
	case p == groupPrefix || p == certPrefix:
		return fmt.Errorf("%q is taken: other names begin with it", p)
	case slices.ContainsFunc(issuers[:n], func(o OIDC) bool { return o.Prefix == p }):
		return fmt.Errorf("%q is another issuer's: give each its own", p)
	}
	return nil
}

// issuer verifies tokens.
type issuer struct {
	OIDC
	client *http.Client

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil until the issuer answered
	retry    time.Time             // not asked again before
	failed   error
}

const (
	oidcPrefix  = "oidc:" // of users
	groupPrefix = "group:"
	certPrefix  = "cert:"

	issuerTimeout = 10 * time.Second
	retryIssuer   = 5 * time.Second
)

func newIssuer(o OIDC) (*issuer, error) {
	if o.Audience == "" {
		return nil, fmt.Errorf("issuer %s: without an audience, tokens for others would be taken: name one", o.Issuer)
	}
	if u, err := url.Parse(o.Issuer); err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLoopbackHost(u.Hostname())) {
		return nil, fmt.Errorf("issuer %q: give a URL with https", o.Issuer)
	}
	if o.IdentityClaim == "" {
		o.IdentityClaim = "sub"
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("issuer %s: %w", o.Issuer, err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("issuer %s: %s holds no certificate in PEM", o.Issuer, o.CAFile)
		}
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	return &issuer{OIDC: o, client: &http.Client{Transport: t, Timeout: issuerTimeout}}, nil
}

func isLoopbackHost(host string) bool {
	return slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, host)
}

// discover asks the issuer for its keys' place, once; after a failure again a little later.
func (i *issuer) discover() (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil {
		return i.verifier, nil
	}
	if time.Now().Before(i.retry) {
		return nil, i.failed
	}
	// The provider keeps the context for later requests of keys: it must not end with this request.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.Background(), i.client), i.Issuer)
	if err != nil {
		i.retry, i.failed = time.Now().Add(retryIssuer), fmt.Errorf("%w: issuer %s: %w", ErrUnavailable, i.Issuer, err)
		return nil, i.failed
	}
	i.verifier = provider.Verifier(&oidc.Config{ClientID: i.Audience})
	return i.verifier, nil
}

// token returns the identity of a token that one of the issuers signed for this audience, and that has not run out.
func (a *Authenticator) token(ctx context.Context, raw string) (Identity, error) {
	if len(a.issuers) == 0 {
		return Identity{}, fmt.Errorf("%w: no issuer of tokens is configured", ErrCredentials)
	}
	var failed []error
	for _, i := range a.issuers {
		id, err := i.check(ctx, raw)
		if err == nil {
			return id, nil
		}
		failed = append(failed, err)
	}
	return Identity{}, errors.Join(failed...)
}

func (i *issuer) check(ctx context.Context, raw string) (Identity, error) {
	verifier, err := i.discover()
	if err != nil {
		return Identity{}, err
	}
	token, err := verifier.Verify(ctx, raw)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: issuer %s: %w", ErrCredentials, i.Issuer, err)
	}
	claims := map[string]any{}
	if err := token.Claims(&claims); err != nil {
		return Identity{}, fmt.Errorf("%w: issuer %s: %w", ErrCredentials, i.Issuer, err)
	}
	name, _ := claims[i.IdentityClaim].(string)
	if name == "" {
		return Identity{}, fmt.Errorf("%w: issuer %s: the token has no claim %s", ErrCredentials, i.Issuer, i.IdentityClaim)
	}
	if verified, given := claims["email_verified"].(bool); i.IdentityClaim == "email" && given && !verified {
		return Identity{}, fmt.Errorf("%w: issuer %s: the address is not verified", ErrCredentials, i.Issuer)
	}
	id := Identity{Name: cmp.Or(i.Prefix, oidcPrefix) + name}
	switch groups := claims[i.GroupsClaim].(type) {
	case string:
		id.Groups = []string{groupPrefix + i.Prefix + groups}
	case []any:
		for _, g := range groups {
			if text, ok := g.(string); ok {
				id.Groups = append(id.Groups, groupPrefix+i.Prefix+text)
			}
		}
	}
	return id, nil
}
