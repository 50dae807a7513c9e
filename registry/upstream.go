package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// Upstream names a registry that stands behind the gateway, in place of the embedded store. Any registry of the OCI distribution
// specification v1.0 or later will do; where it has no referrers, attestations get the specification's fallback tags.
type Upstream struct {
	URL      string // http or https, host and port, or unix and the path of a socket, where HTTP is spoken; "" is the embedded store
	CAFile   string // PEM file of authorities that are trusted besides the system's
	CertFile string // PEM files of a client certificate
	KeyFile  string
	Username string // of the gateway itself, for releases; "" is anonymous
	Password string
	// PassThrough sends the clients' own credentials on, unread, and leaves it to the upstream registry what they may do: a push to
	// an intercepted repository is taken only if the upstream would take it too. Otherwise requests go out with Username.
	PassThrough bool
}

// upstream is a backend in another registry.
type upstream struct {
	origin      *url.URL
	passThrough bool
	transport   http.RoundTripper // without credentials
	client      *auth.Client      // with the gateway's credentials; repeats requests that failed for a reason that passes
	proxied     *auth.Client      // likewise; repeats nothing and follows no redirect
	grants      grants

	mu      sync.Mutex
	repos   map[string]*remote.Repository // one each, because it serializes changes of a fallback tag
	renewed map[string]time.Time          // until when the token of some scopes is fresh
}

const (
	dialTimeout   = 10 * time.Second
	answerTimeout = 5 * time.Minute // from the end of a request to the head of its answer: a registry hashes a large blob meanwhile
)

func openUpstream(c Upstream) (*upstream, error) {
	origin, dial, err := c.address()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		if config.RootCAs, err = authorities(c.CAFile); err != nil {
			return nil, fmt.Errorf("upstream CA: %w", err)
		}
	}
	if c.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
			return nil, fmt.Errorf("upstream client certificate: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // read anew: it may be renewed
			pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &pair, err
		}
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
		DialContext:         dial,
		TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: answerTimeout, IdleConnTimeout: 90 * time.Second,
		MaxIdleConnsPerHost: 64, ExpectContinueTimeout: time.Second,
		DisableCompression: true, // bytes pass as they are
		ReadBufferSize:     64 << 10, WriteBufferSize: 64 << 10,
	}
	u := &upstream{
		origin: origin, passThrough: c.PassThrough, transport: transport,
		repos: map[string]*remote.Repository{}, renewed: map[string]time.Time{},
	}
	credential := auth.StaticCredential(origin.Host, auth.Credential{Username: c.Username, Password: c.Password})
	cache := auth.NewCache()
	u.client = &auth.Client{Client: &http.Client{Transport: retry.NewTransport(transport)}, Credential: credential, Cache: cache}
	u.proxied = &auth.Client{
		Client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		Cache:  cache, Credential: credential,
	}
	if c.Username == "" {
		u.client.Credential, u.proxied.Credential = nil, nil
	}
	u.client.SetUserAgent("grindstone")
	return u, nil
}

// socketHost stands in the requests to a registry behind a socket, which has no name of its own.
const socketHost = "localhost"

// CheckURL finds what is wrong with the URL of an upstream.
func CheckURL(text string) error {
	_, _, err := Upstream{URL: text}.address()
	return err
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// address returns the origin of all requests and how to connect to it.
func (c Upstream) address() (*url.URL, dialer, error) {
	u, err := url.Parse(c.URL)
	network := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	switch {
	case err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "":
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.Trim(u.Path, "/") == "":
		return &url.URL{Scheme: u.Scheme, Host: u.Host}, network.DialContext, nil
	case u.Scheme == "unix" && u.Host == "" && path.IsAbs(u.Path):
		socket := net.JoinHostPort(socketHost, "80")
		return &url.URL{Scheme: "http", Host: socketHost}, func(ctx context.Context, kind, address string) (net.Conn, error) {
			if address == socket {
				kind, address = "unix", u.Path
			}
			return network.DialContext(ctx, kind, address) // else where the registry sends to: a token's issuer, say
		}, nil
	}
	return nil, nil, fmt.Errorf("%q is neither scheme, host and port, as in https://registry.example.com:5000, nor a socket, as in unix:///run/registry.sock", c.URL)
}

// authorities reads a PEM file of certificates and adds them to the system's.
func authorities(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}

// repository returns the client of a repository, with the gateway's credentials.
func (u *upstream) repository(name string) (*remote.Repository, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if r := u.repos[name]; r != nil {
		return r, nil
	}
	r, err := remote.NewRepository(u.origin.Host + "/" + name)
	if err != nil {
		return nil, err
	}
	r.Client, r.PlainHTTP, r.SkipReferrersGC = u.client, u.origin.Scheme == "http", true
	u.repos[name] = r
	return r, nil
}

// check asks for /v2/. That credentials are refused there is no sign of illness of a registry that clients bring their own to.
func (u *upstream) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.origin.JoinPath("/v2/").String(), nil)
	if err != nil {
		return err
	}
	answer, err := u.proxied.Do(r) //nolint:bodyclose // drain closes it
	if err != nil {
		return fmt.Errorf("the upstream registry: %w", err)
	}
	defer drain(answer.Body)
	if answer.StatusCode != http.StatusOK && !(u.passThrough && answer.StatusCode == http.StatusUnauthorized) {
		return fmt.Errorf("the upstream registry answers /v2/ with %s", answer.Status)
	}
	return nil
}

func (u *upstream) close() {
	if t, ok := u.transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// drain reads what is left of a small answer, so that its connection can be used again, and closes it.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	body.Close()
}

// unreachable is what clients are told when the upstream cannot be asked.
func unreachable(err error) error {
	var e *clientError
	if errors.As(err, &e) {
		return err
	}
	return refuse(http.StatusServiceUnavailable, codeUnavailable, "the registry behind this one cannot be reached now: try again later").because(err)
}
