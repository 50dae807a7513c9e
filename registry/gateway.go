// Package registry is the OCI side of Grindstone: a gateway that holds the models that are pushed to intercepted
// repositories in quarantine and serves what was released instead.
//
// The gateway keeps two stores on disk. What is pushed to an intercepted repository goes to the quarantine store; what
// is read from one comes from the released store. Quarantined content is hidden because no read is ever answered from
// its store, and it gets into the released store through [Gateway.Release] only. All other repositories live in the
// released store altogether.
package registry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config says how a Gateway works.
type Config struct {
	// Dir is the directory of the stores. One process at a time can use it.
	Dir string
	// Intercept reports whether pushes to a repository are held in quarantine. It must always give the same answer:
	// the quarantine of a repository that is no longer intercepted cannot be reached, and what was in a repository
	// before it was intercepted stays readable.
	Intercept func(repository string) bool
	Admitter  Admitter
	Log       *slog.Logger // nil logs nothing
	Limits    Limits
}

// Limits bound what a client can send. Zero is the default.
type Limits struct {
	ManifestBytes int64 // of one manifest; 4 MiB by default
	BlobBytes     int64 // of one upload request, and of one blob of an intercepted package; unlimited by default
}

// Gateway is an http.Handler for /v2/. Its methods may be called from many goroutines.
type Gateway struct {
	intercept  func(string) bool
	admitter   Admitter
	log        *slog.Logger
	limits     Limits
	quarantine *store
	released   *store
	lock       io.Closer
	pushes     keyedMutex // by repository and digest
}

// New opens the stores in c.Dir, which is created if need be. It fails with ErrLocked if another process uses it.
func New(c Config) (*Gateway, error) {
	switch {
	case c.Dir == "":
		return nil, errors.New("registry: Config.Dir is empty: name a directory for the stores")
	case c.Intercept == nil:
		return nil, errors.New("registry: Config.Intercept is nil: say which repositories are intercepted")
	case c.Admitter == nil:
		return nil, errors.New("registry: Config.Admitter is nil: nothing could be admitted")
	case c.Limits.ManifestBytes < 0 || c.Limits.BlobBytes < 0:
		return nil, errors.New("registry: Config.Limits has a negative limit")
	}
	if c.Limits.ManifestBytes == 0 {
		c.Limits.ManifestBytes = 4 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{intercept: c.Intercept, admitter: c.Admitter, log: c.Log, limits: c.Limits}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if g.lock, err = lockDir(dir); err != nil {
		return nil, fmt.Errorf("registry: %s: %w", dir, err)
	}
	if g.quarantine, err = openStore(filepath.Join(dir, "quarantine"), c.Limits, c.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("registry: %w", err), g.lock.Close())
	}
	if g.released, err = openStore(filepath.Join(dir, "released"), c.Limits, c.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("registry: %w", err), g.quarantine.close(), g.lock.Close())
	}
	return g, nil
}

// Close ends unfinished uploads and releases the directory. No request may be in progress.
func (g *Gateway) Close() error {
	return errors.Join(g.quarantine.close(), g.released.close(), g.lock.Close())
}

// ServeHTTP answers a request of the OCI distribution protocol.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if err := g.serve(w, r); err != nil {
		writeError(w, r, g.log, err)
	}
}

// serve answers a request unless it returns an error.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) error {
	rt, err := parseRoute(r.URL)
	if err != nil {
		return err
	}
	switch rt.kind {
	case base:
		return g.forward(w, r, rt, g.released, nil)
	case catalog:
		return g.catalog(w, r)
	case uploads:
		if w, err = g.limitUpload(w, r); err != nil {
			return err
		}
	case tags:
		return g.tags(w, r, rt)
	}
	if g.intercept(rt.repository) {
		return g.serveIntercepted(w, r, rt)
	}
	query := r.URL.Query()
	if from := query.Get("from"); !validName(from) || !g.released.has(from) {
		query.Del("from") // the mount becomes an upload
	}
	if rt.kind == manifests && r.Method == http.MethodPut {
		raw, err := g.readManifest(r)
		if err != nil {
			return err
		}
		r = withBody(r, raw)
	}
	return g.forward(w, r, rt, g.released, query)
}

// forward lets a store answer the request, by the route and query given instead of the request's own.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, rt route, s *store, query url.Values) error {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case rt.kind == base:
	case rt.kind == uploads && rt.reference == "" && r.Method == http.MethodPost, rt.kind == manifests && r.Method == http.MethodPut:
		if err := s.create(r.Context(), rt.repository); err != nil {
			return err
		}
	case s.has(rt.repository):
	case rt.kind == referrers && read:
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		return writeJSON(w, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{},
		})
	default:
		return refuse(http.StatusNotFound, codeNameUnknown, "repository %s is not known", rt.repository)
	}
	r = r.Clone(r.Context())
	r.URL = &url.URL{Path: rt.path(), RawQuery: query.Encode()}
	s.srv.ServeHTTP(w, r)
	return nil
}
