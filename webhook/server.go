package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"grindstone/registry"
)

// ServerConfig says what the server serves.
type ServerConfig struct {
	Access         Access        // who makes a request, and what they may do
	Operators      Operators     // who may operate; default LoopbackOperators
	Checks         []Check       // further conditions of /readyz
	HeaderTimeout  time.Duration // for a request's head; default 10 s
	RequestTimeout time.Duration // for a request's head and body, uploads too; default 1 hour
	GracePeriod    time.Duration // for requests in flight at shutdown; default 30 s

	ResponsePatience time.Duration // for each MiB of a response to be taken; default 2 min
}

// Server answers HTTP: the registry under /v2/, the API, health and metrics.
type Server struct {
	config   ServerConfig
	pipeline *Pipeline
	gateway  *registry.Gateway
	log      *slog.Logger
	echo     *echo.Echo
	stopping atomic.Bool
}

// NewServer makes the routes. The pipeline need not be started.
func NewServer(c ServerConfig, p *Pipeline, g *registry.Gateway, log *slog.Logger) *Server {
	setDefault(&c.HeaderTimeout, 10*time.Second)
	setDefault(&c.RequestTimeout, time.Hour)
	setDefault(&c.GracePeriod, 30*time.Second)
	setDefault(&c.ResponsePatience, 2*time.Minute)
	if c.Operators == nil {
		c.Operators = LoopbackOperators{}
	}
	s := &Server{config: c, pipeline: p, gateway: g, log: log, echo: echo.New()}
	s.routes()
	return s
}

func (s *Server) routes() {
	e := s.echo
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = writeError(s.log)
	e.IPExtractor = echo.ExtractIPDirect()
	e.Use(identify, s.steadyBodies, logRequests(s.log, s.pipeline.metrics), recoverPanics)
	if s.config.Access != nil {
		e.Use(exceptEvents(echo.WrapMiddleware(s.config.Access.Middleware)))
	}

	e.Any("/v2/*", sendFiles(s.gateway)) // has limits of its own
	e.Any("/v2", sendFiles(s.gateway))
	get := func(path string, h echo.HandlerFunc) { e.GET(path, h, middleware.BodyLimit("64K")) }
	get("/api/v1/admissions", s.pushersOnly(s.listAdmissions))
	get("/api/v1/admissions/:id", s.getAdmission)
	get("/api/v1/admissions/:id/events", s.followAdmission)
	get("/api/v1/admissions/:id/logs", s.getLog)
	get("/api/v1/key", s.publicKey)
	get("/healthz", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "ok"}) })
	get("/readyz", s.ready)
	e.GET("/metrics", echo.WrapHandler(s.pipeline.metrics.handler()), s.pushersOnly)
	s.operatorRoutes()
}

// steadyBodies cuts off bodies that trickle in, whatever they are for: also of those who have not shown who they are.
func (s *Server) steadyBodies(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		defer s.gateway.Steady(c.Response(), c.Request())()
		return next(c)
	}
}

// recoverPanics turns a panic of a handler into an error, except the one that net/http uses to break a connection off.
func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	protected := middleware.RecoverWithConfig(middleware.RecoverConfig{
		DisablePrintStack: true,
		LogErrorFunc:      func(_ echo.Context, err error, _ []byte) error { return err },
	})
	return protected(next)
}

// ServeHTTP makes the server an http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	steady := &steadyResponse{w, http.NewResponseController(w), s.config.ResponsePatience}
	_ = steady.connection.SetWriteDeadline(time.Time{}) // of the request before
	defer steady.hurry()                                // net/http sends the end
	s.echo.ServeHTTP(steady, r)
}

// Serve starts the pipeline and answers requests on l until ctx is cancelled. Then it stops the sanitizers, whose admissions go
// on at the next start, lets requests in flight finish within the grace period, and returns nil. It does the same when the queue in this
// process has lost its store, and returns queue.ErrStore: it has to be opened anew.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer s.pipeline.Wait()
	defer cancel(nil)
	if err := s.pipeline.Start(ctx, s.gateway); err != nil {
		return err
	}
	go s.pipeline.watchQueue(ctx, cancel)
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: s.config.HeaderTimeout, ReadTimeout: s.config.RequestTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		s.stopping.Store(true)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.GracePeriod)
		defer cancel()
		err := server.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			s.log.Warn("requests were still in flight at the end of the grace period and were broken off")
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(l)
	if stop() { // not cancelled: the listener failed
		return err
	}
	err = <-stopped
	if outer.Err() == nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return err
}

func setDefault(d *time.Duration, otherwise time.Duration) {
	if *d <= 0 {
		*d = otherwise
	}
}
