// Package auth finds out who makes a request and what they may do: logins by htpasswd, by OIDC token or by client certificate, and
// roles per repository. It knows nothing of registries; others ask it.
package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Identity is who makes a request.
type Identity struct {
	// Name is the user of an htpasswd file as it is, the issuer's prefix ("oidc:" where there is one issuer) and the token's identity claim,
	// or "cert:" and the certificate's URI or common name. So no issuer can make up the name of another's. "" is anonymous.
	Name   string
	Groups []string // "group:", the issuer's prefix if it is given one, and each value of the token's groups claim
}

// Role is what an identity may do in a repository. Each includes the ones before it.
type Role string

// The roles.
const (
	Pull     Role = "pull"     // read what is released
	Push     Role = "push"     // push
	Operator Role = "operator" // read what is in quarantine; approve, reject and retry
)

// Roles are the roles from the least to the most.
var Roles = []Role{Pull, Push, Operator}

func (r Role) rank() int {
	for i, known := range Roles {
		if r == known {
			return i + 1
		}
	}
	return 0
}

// Config says who may log in, and who may do what.
type Config struct {
	Htpasswd  string // path of a file with bcrypt hashes; "" is none
	OIDC      []OIDC
	Rules     []Rule
	Anonymous Role // of requests without credentials, in all repositories; "" is none
	// Loopback lets anonymous requests from this machine push and pull: for a server that nobody logs in to.
	Loopback bool
	Log      *slog.Logger
}

// Rule gives a role to identities in repositories. Rules add up.
type Rule struct {
	Who          []string // names or groups; * stands for any text, and "anonymous" for who has no name
	Repositories func(repository string) bool
	Role         Role
}

// Errors of Authenticate.
var (
	ErrCredentials = errors.New("the credentials are not accepted")
	ErrUnavailable = errors.New("the credentials cannot be checked now")
)

// Authenticator checks credentials and roles. Its methods may be called from many goroutines.
type Authenticator struct {
	config  Config
	users   *htpasswd
	issuers []*issuer
	rules   []rule
}

// New reads the files that c names. An OIDC issuer is asked for its keys when the first token comes.
func New(c Config) (*Authenticator, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &Authenticator{config: c}
	if c.Htpasswd != "" {
		a.users = &htpasswd{path: c.Htpasswd}
		if _, err := a.users.read(); err != nil {
			return nil, fmt.Errorf("htpasswd: %w", err)
		}
	}
	for n, o := range c.OIDC {
		if err := CheckPrefix(c.OIDC, n); err != nil {
			return nil, fmt.Errorf("issuer %s: the prefix %w", o.Issuer, err)
		}
		i, err := newIssuer(o)
		if err != nil {
			return nil, err
		}
		a.issuers = append(a.issuers, i)
	}
	for _, r := range c.Rules {
		if r.Role.rank() == 0 {
			return nil, fmt.Errorf("%q is not a role; roles are %v", r.Role, Roles)
		}
		a.rules = append(a.rules, newRule(r))
	}
	return a, nil
}

// Authenticate returns who makes the request: by its Authorization header, else by its client certificate, which TLS has verified,
// else nobody.
func (a *Authenticator) Authenticate(r *http.Request) (Identity, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return certified(r), nil
	}
	if user, password, ok := r.BasicAuth(); ok {
		if isToken(user) {
			return a.token(r.Context(), password)
		}
		if a.users == nil {
			return Identity{}, ErrCredentials
		}
		return a.users.check(r.Context(), user, password)
	}
	if scheme, token, ok := strings.Cut(header, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return a.token(r.Context(), strings.TrimSpace(token))
	}
	return Identity{}, ErrCredentials
}

// isToken tells the user names by which clients that know only passwords send a token as one.
func isToken(user string) bool { return user == "oauth2accesstoken" || user == "<token>" }

// Challenge is the WWW-Authenticate header of a 401.
func (a *Authenticator) Challenge() string { return `Basic realm="grindstone", charset="UTF-8"` }

type contextKey struct{}

type visitor struct {
	Identity
	loopback bool
}

// Middleware authenticates requests before next sees them. What has wrong credentials is answered 401 at once, even where none are
// needed; what has none goes on as anonymous. named is called with the context of a request and who makes it.
func (a *Authenticator) Middleware(named func(context.Context, string) context.Context) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, err := a.Authenticate(r)
			if err != nil {
				a.refuse(w, r, err)
				return
			}
			ctx := context.WithValue(r.Context(), contextKey{}, visitor{id, fromLoopback(r)})
			next.ServeHTTP(w, r.WithContext(named(ctx, id.Name)))
		})
	}
}

func (a *Authenticator) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, code := http.StatusUnauthorized, "UNAUTHORIZED"
	if errors.Is(err, ErrUnavailable) {
		status, code = http.StatusServiceUnavailable, "UNAVAILABLE"
		w.Header().Set("Retry-After", "5")
	} else {
		w.Header().Set("WWW-Authenticate", a.Challenge())
	}
	a.config.Log.Warn("credentials refused", "path", r.URL.Path, "remote", r.RemoteAddr, "cause", err)
	text := ErrCredentials.Error()
	if status == http.StatusServiceUnavailable {
		text = ErrUnavailable.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": text}}}) // a client that went away cannot be told
}

// FromContext returns who makes the request that Middleware passed on.
func FromContext(ctx context.Context) Identity {
	v, _ := ctx.Value(contextKey{}).(visitor)
	return v.Identity
}

// Allowed reports whether who makes the request has a role in a repository.
func (a *Authenticator) Allowed(ctx context.Context, repository string, role Role) bool {
	v, _ := ctx.Value(contextKey{}).(visitor)
	return a.general(v, role) || slices.ContainsFunc(a.rules, func(r rule) bool {
		return r.Role.rank() >= role.rank() && r.names(v.Identity) && r.Repositories(repository)
	})
}

// general reports whether a role is had in all repositories without a rule.
func (a *Authenticator) general(v visitor, role Role) bool {
	return v.Name == "" && (a.config.Anonymous.rank() >= role.rank() || a.config.Loopback && v.loopback && role != Operator)
}

// Has reports whether who makes the request has a role in any repository.
func (a *Authenticator) Has(ctx context.Context, role Role) bool {
	v, _ := ctx.Value(contextKey{}).(visitor)
	return a.general(v, role) || slices.ContainsFunc(a.rules, func(r rule) bool { return r.Role.rank() >= role.rank() && r.names(v.Identity) })
}

// fromLoopback reports whether the client is on this machine.
func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// certified returns the identity of a client certificate that was verified.
func certified(r *http.Request) Identity {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Identity{}
	}
	leaf := r.TLS.VerifiedChains[0][0]
	switch {
	case len(leaf.URIs) > 0: // SPIFFE
		return Identity{Name: certPrefix + leaf.URIs[0].String()}
	case leaf.Subject.CommonName != "":
		return Identity{Name: certPrefix + leaf.Subject.CommonName}
	}
	return Identity{}
}
