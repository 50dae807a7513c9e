// Package registry is the OCI side of Grindstone: a gateway that holds the models that are pushed to intercepted
// repositories in quarantine and serves what was released instead.
//
// What is pushed to an intercepted repository goes to the quarantine store on disk; what is read from one comes from the
// backend, an embedded store or a registry behind the gateway, which has only what [Gateway.Release] put there. Quarantined
// content is hidden because no read is ever answered from its store, but to those who pushed it and to operators. All other
// repositories live in the backend altogether.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Config says how a Gateway works.
type Config struct {
	// Dir is the directory of the stores. One process at a time can use it.
	Dir string
	// Upstream is the registry behind the gateway. Without a URL the gateway has an embedded one under Dir.
	Upstream Upstream
	// Intercept reports whether pushes to a repository are held in quarantine. It must always give the same answer:
	// the quarantine of a repository that is no longer intercepted cannot be reached, and what was in a repository
	// before it was intercepted stays readable.
	Intercept func(repository string) bool
	Admitter  Admitter
	// Authorize reports whether the identity that WithIdentity put into the context may do that. nil allows everything
	// but ActionOperate. It is not asked where the upstream decides (Upstream.PassThrough).
	Authorize func(ctx context.Context, repository string, a Action) bool
	Challenge string       // WWW-Authenticate of a 401
	Log       *slog.Logger // nil logs nothing
	Limits    Limits
}

// Limits bound what a client can send. Zero is the default.
type Limits struct {
	ManifestBytes int64 // of one manifest; 4 MiB by default
	BlobBytes     int64 // of one upload, and of one blob of an intercepted package; unlimited by default
	ArchiveBytes  int64 // that are read out of the archives of one package, where an archive bomb ends; 16 GiB by default
	Uploads       int   // open at a time, but for those that an upstream takes; 2000 by default
	UploadsEach   int   // of these, by one identity; 500 by default
	// A request's body may take BodyGrace, and a second more for each BodyRate bytes, and pause no longer than BodyGrace; 30 s and 1 KiB by
	// default. They bound what the gateway takes in itself, and every request that Gateway.Steady sees.
	BodyGrace time.Duration
	BodyRate  int64
	BodyTime  time.Duration // that a body may take altogether; unlimited by default
}

// Folders of Config.Dir.
const (
	quarantineRoot = "quarantine"
	holdersRoot    = "holders"
)

// Gateway is an http.Handler for /v2/. Its methods may be called from many goroutines.
type Gateway struct {
	intercept  func(string) bool
	admitter   Admitter
	authorize  func(context.Context, string, Action) bool
	challenge  string
	log        *slog.Logger
	limits     Limits
	quarantine *store
	released   backend
	upstream   *upstream // released, if it is one; else nil
	embedded   *store    // released, if it is one; else nil
	holders    *holders
	lock       io.Closer
	pushes     keyedMutex    // by repository and digest
	inspecting chan struct{} // has a place for each package that is looked through at a time
	uploads    uploadTable
}

// New opens the stores in c.Dir, which is created if need be. It fails with ErrLocked if another process uses it. An upstream is not
// asked for anything yet.
func New(c Config) (*Gateway, error) {
	switch {
	case c.Dir == "":
		return nil, errors.New("registry: Config.Dir is empty: name a directory for the stores")
	case c.Intercept == nil:
		return nil, errors.New("registry: Config.Intercept is nil: say which repositories are intercepted")
	case c.Admitter == nil:
		return nil, errors.New("registry: Config.Admitter is nil: nothing could be admitted")
	case c.Limits.ManifestBytes < 0 || c.Limits.BlobBytes < 0 || c.Limits.ArchiveBytes < 0:
		return nil, errors.New("registry: Config.Limits has a negative limit")
	}
	setDefault(&c.Limits.ManifestBytes, 4<<20)
	setDefault(&c.Limits.ArchiveBytes, 16<<30)
	setDefault(&c.Limits.Uploads, 2000)
	setDefault(&c.Limits.UploadsEach, 500)
	setDefault(&c.Limits.BodyGrace, 30*time.Second)
	setDefault(&c.Limits.BodyRate, 1<<10)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		intercept: c.Intercept, admitter: c.Admitter, authorize: c.Authorize, challenge: c.Challenge, log: c.Log, limits: c.Limits, inspecting: make(chan struct{}, maxInspections),
	}
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
	g.holders = &holders{root: filepath.Join(dir, holdersRoot)}
	if g.quarantine, err = openStore(filepath.Join(dir, quarantineRoot), c.Limits, c.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("registry: %w", err), g.lock.Close())
	}
	if c.Upstream.URL != "" {
		g.upstream, err = openUpstream(c.Upstream)
		g.released = g.upstream
	} else {
		g.embedded, err = openStore(filepath.Join(dir, "released"), c.Limits, c.Log)
		g.released = g.embedded
	}
	if err != nil {
		g.quarantine.close()
		return nil, errors.Join(fmt.Errorf("registry: %w", err), g.lock.Close())
	}
	return g, nil
}

func setDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Close ends unfinished uploads and releases the directory. No request may be in progress.
func (g *Gateway) Close() error {
	g.quarantine.close()
	g.released.close()
	return g.lock.Close()
}

// Check reports why released content cannot be served or written now: a folder that is gone, an upstream that does not answer.
func (g *Gateway) Check(ctx context.Context) error { return g.released.check(ctx) }

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
	if rt.kind == uploads && r.Method == http.MethodPost {
		if r, err = g.checkMount(r); err != nil {
			return err
		}
	}
	if r, err = g.access(r, rt); err != nil {
		return err
	}
	switch rt.kind {
	case base:
		return g.base(w, r, rt)
	case catalog:
		return g.catalog(w, r)
	}
	if g.intercept(rt.repository) {
		return g.serveIntercepted(w, r, rt)
	}
	if g.upstream != nil {
		return g.released.forward(w, r, rt, nil)
	}
	return g.serveEmbedded(w, r, rt)
}

// base answers whether this is a registry, and in what version. Where the upstream decides, it also says how to log in.
func (g *Gateway) base(w http.ResponseWriter, r *http.Request, rt route) error {
	if g.upstream != nil && !g.upstream.passThrough {
		return g.quarantine.forward(w, r, rt, nil)
	}
	return g.released.forward(w, r, rt, nil)
}

// serveEmbedded answers a request to a repository of the embedded store that is not intercepted.
func (g *Gateway) serveEmbedded(w http.ResponseWriter, r *http.Request, rt route) error {
	steady(w, r, g.limits)
	switch {
	case rt.kind == uploads:
		return g.takeUpload(w, r, rt, r.URL.Query(), g.embedded)
	case rt.kind == tags:
		return g.tags(w, r, rt)
	case rt.kind == manifests && r.Method == http.MethodPut:
		raw, err := g.readManifest(r)
		if err != nil {
			return err
		}
		r = withBody(r, raw)
	}
	return g.released.forward(w, r, rt, r.URL.Query())
}
