package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"grindstone/registry"
)

// ServerConfig says what the server serves.
type ServerConfig struct {
	HTTPConfig
	Access    Access    // who makes a request, and what they may do
	Operators Operators // who may operate; default LoopbackOperators
}

// Server answers HTTP: the registry under /v2/, the API, health and metrics.
type Server struct {
	*frontend
	access    Access
	operators Operators
	pipeline  *Pipeline
	gateway   *registry.Gateway
}

// NewServer makes the routes. The pipeline need not be started.
func NewServer(c ServerConfig, p *Pipeline, g *registry.Gateway, log *slog.Logger) *Server {
	if c.Operators == nil {
		c.Operators = LoopbackOperators{}
	}
	s := &Server{newFrontend(c.HTTPConfig, p.metrics.processMetrics, log), c.Access, c.Operators, p, g}
	s.checks = append(s.ownChecks(), s.checks...)
	s.routes()
	return s
}

func (s *Server) routes() {
	e := s.echo
	e.Use(identify, s.steadyBodies, logRequests(s.log, s.metrics), recoverPanics)
	if s.access != nil {
		e.Use(exceptEvents(echo.WrapMiddleware(s.access.Middleware)))
	}

	e.Any("/v2/*", sendFiles(s.gateway)) // has limits of its own
	e.Any("/v2", sendFiles(s.gateway))
	get := func(path string, h echo.HandlerFunc) { e.GET(path, h, middleware.BodyLimit("64K")) }
	get("/api/v1/admissions", s.pushersOnly(s.listAdmissions))
	get("/api/v1/admissions/:id", s.getAdmission)
	get("/api/v1/admissions/:id/events", s.followAdmission)
	get("/api/v1/admissions/:id/logs", s.getLog)
	get("/api/v1/key", s.publicKey)
	s.watchRoutes(s.pushersOnly)
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
	err := s.serve(ctx, l)
	if outer.Err() == nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return err
}
