package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// forward streams the request to the upstream and its answer back. Bodies and headers are not changed, but for these:
//
//   - hop-by-hop headers end here, as HTTP has it, and X-Forwarded-For is set;
//   - a Location or Link that names the upstream by its origin is made relative, so that an upload goes on through the gateway;
//   - without PassThrough the client's Authorization is replaced by the gateway's.
//
// The query is the client's own, whatever query is given: an upstream has its own parameters.
func (u *upstream) forward(w http.ResponseWriter, r *http.Request, rt route, _ url.Values) error {
	return u.proxy(w, r, rt, nil)
}

// errAbsent stops an answer of 404 from being sent.
var errAbsent = errors.New("the upstream does not have it")

func (u *upstream) read(w http.ResponseWriter, r *http.Request, rt route, absent func() error) error {
	err := u.proxy(w, r, rt, func(answer *http.Response) error {
		if answer.StatusCode == http.StatusNotFound {
			return errAbsent
		}
		return nil
	})
	if errors.Is(err, errAbsent) {
		return absent()
	}
	return err
}

// referrers answers for an upstream that has no such endpoint from the fallback tag (specification, section "Referrers Tag Schema"), which is asked for as the
// request is: with the client's own credentials where the upstream checks them.
func (u *upstream) referrers(w http.ResponseWriter, r *http.Request, rt route) error {
	return u.read(w, r, rt, func() error {
		index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
		tag := route{kind: manifests, repository: rt.repository, reference: rt.digest.Algorithm().String() + "-" + rt.digest.Encoded()}
		answer, there := &reply{header: http.Header{}}, true
		err := u.read(answer, plainGet(r), tag, func() error {
			there = false
			return nil
		})
		switch {
		case err != nil:
			return err
		case there && answer.status != http.StatusOK: // it is refused
			return answer.send(w, answer.body.Bytes())
		case there:
			if err := json.Unmarshal(answer.body.Bytes(), &index); err != nil {
				return unreachable(err)
			}
		}
		if wanted := r.URL.Query().Get("artifactType"); wanted != "" {
			index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.ArtifactType != wanted })
			w.Header().Set("OCI-Filters-Applied", "artifactType")
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		return writeJSON(w, index)
	})
}

func (u *upstream) tags(w http.ResponseWriter, r *http.Request, rt route, _ int) error {
	return u.proxy(w, r, rt, nil)
}

// catalog passes the upstream's pages through. Where only some repositories are visible, a page may have fewer names than were
// asked for, or none, and still have a Link to the next.
func (u *upstream) catalog(w http.ResponseWriter, r *http.Request, _ int, visible func(string) bool) error {
	if visible == nil {
		return u.proxy(w, r, route{kind: catalog}, nil)
	}
	return u.proxy(w, r, route{kind: catalog}, func(answer *http.Response) error {
		if answer.StatusCode != http.StatusOK || r.Method != http.MethodGet {
			return nil
		}
		defer answer.Body.Close()
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := json.NewDecoder(io.LimitReader(answer.Body, maxListBytes)).Decode(&page); err != nil {
			return fmt.Errorf("the upstream's catalog cannot be read: %w", err)
		}
		kept := []string{}
		for _, name := range page.Repositories {
			if visible(name) {
				kept = append(kept, name)
			}
		}
		body, err := json.Marshal(map[string]any{"repositories": kept})
		if err != nil {
			return err
		}
		answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		answer.Header.Set("Content-Length", strconv.Itoa(len(body)))
		return nil
	})
}

const maxListBytes = 16 << 20 // of a page of a list

// proxy streams a request and its answer. look may change the answer, or keep it from being sent by an error, which is returned.
func (u *upstream) proxy(w http.ResponseWriter, r *http.Request, rt route, look func(*http.Response) error) error {
	var failed error
	transport := u.transport
	if !u.passThrough {
		transport = credentialed{u, hint(u.origin.Host, rt, r)}
	}
	p := &httputil.ReverseProxy{
		Transport: transport, BufferPool: buffers{},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = &url.URL{Scheme: u.origin.Scheme, Host: u.origin.Host, Path: rt.path(), RawQuery: p.In.URL.RawQuery}
			p.Out.Host = ""
			p.SetXForwarded()
			// Both would have the upstream write Locations with a scheme and host that it cannot know.
			p.Out.Header.Del("X-Forwarded-Host")
			p.Out.Header.Del("X-Forwarded-Proto")
			if !u.passThrough {
				p.Out.Header.Del("Authorization")
			}
		},
		ModifyResponse: func(answer *http.Response) error {
			for _, name := range []string{"Location", "Link"} {
				if v := answer.Header.Get(name); v != "" {
					answer.Header.Set(name, u.relative(v))
				}
			}
			if look != nil {
				if err := look(answer); err != nil {
					return err
				}
			}
			for name := range answer.Header { // what the upstream says goes over what this server said
				w.Header().Del(name)
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	p.ServeHTTP(w, r)
	if failed != nil && !errors.Is(failed, errAbsent) {
		return unreachable(failed)
	}
	return failed
}

// relative cuts the upstream's own origin from a URL, or from the URL of a Link header.
func (u *upstream) relative(v string) string {
	prefix, rest := "", v
	if strings.HasPrefix(v, "<") {
		prefix, rest = "<", v[1:]
	}
	path, ok := strings.CutPrefix(rest, u.origin.String())
	if !ok || !strings.HasPrefix(path, "/v2/") {
		return v
	}
	return prefix + path
}

// credentialed sends requests with the gateway's credentials. A body cannot be sent twice, so before the first one, and when the
// token could have run out, it asks for a token with a request that has none.
type credentialed struct {
	*upstream
	scope func(context.Context) context.Context
}

// freshFor is how long a token needs no renewal: well below the 60 s that tokens live at least.
const freshFor = 30 * time.Second

func (c credentialed) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := c.scope(r.Context())
	if r.Body != nil && r.Body != http.NoBody {
		if err := c.renew(ctx); err != nil {
			return nil, err
		}
	}
	r = r.Clone(ctx)
	r.RequestURI = "" // else http.Client refuses it
	return c.proxied.Do(r)
}

// renew asks for /v2/, which is answered 401 where there is no valid token, and so gets one.
func (u *upstream) renew(ctx context.Context) error {
	scopes := strings.Join(auth.GetScopesForHost(ctx, u.origin.Host), " ")
	u.mu.Lock()
	until := u.renewed[scopes]
	u.mu.Unlock()
	if time.Now().Before(until) {
		return nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.origin.JoinPath("/v2/").String(), nil)
	if err != nil {
		return err
	}
	answer, err := u.proxied.Do(r) //nolint:bodyclose // drain closes it
	if err != nil {
		return err
	}
	drain(answer.Body)
	u.mu.Lock()
	defer u.mu.Unlock()
	for s, until := range u.renewed {
		if time.Now().After(until) {
			delete(u.renewed, s)
		}
	}
	u.renewed[scopes] = time.Now().Add(freshFor)
	return nil
}

// hint names the scope of a route, so that one token serves all requests of an upload.
func hint(host string, rt route, r *http.Request) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context {
		switch {
		case rt.kind == base:
			return ctx
		case rt.kind == catalog:
			return auth.WithScopesForHost(ctx, host, auth.ScopeRegistryCatalog)
		}
		actions := []string{auth.ActionPull}
		if r.Method == http.MethodDelete && rt.kind != uploads {
			actions = append(actions, auth.ActionDelete)
		} else if r.Method != http.MethodGet && r.Method != http.MethodHead || rt.kind == uploads {
			actions = append(actions, auth.ActionPush)
		}
		scopes := []string{auth.ScopeRepository(rt.repository, actions...)}
		if from := r.URL.Query().Get("from"); validName(from) {
			scopes = append(scopes, auth.ScopeRepository(from, auth.ActionPull))
		}
		return auth.WithScopesForHost(ctx, host, scopes...)
	}
}

// buffers lends the proxy's copy buffers.
type buffers struct{}

const bufferSize = 256 << 10

var bufferPool = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

func (buffers) Get() []byte  { return *bufferPool.Get().(*[]byte) }
func (buffers) Put(b []byte) { bufferPool.Put(&b) }
