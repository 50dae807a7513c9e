package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// HTTPConfig says how a server or a worker answers HTTP.
type HTTPConfig struct {
	Checks         []Check       // further conditions of /readyz
	HeaderTimeout  time.Duration // for a request's head; default 10 s
	RequestTimeout time.Duration // for a request's head and body, uploads too; default 1 hour
	GracePeriod    time.Duration // for requests in flight at shutdown; default 30 s

	ResponsePatience time.Duration // for each MiB of a response to be taken; default 2 min

	Connections int         // open at a time; 0 is no limit
	TLS         *tls.Config // nil answers without
}

// frontend is what a server and a worker have in common for who watches them and for slow clients.
type frontend struct {
	config   HTTPConfig
	checks   []Check
	metrics  *processMetrics
	log      *slog.Logger
	echo     *echo.Echo
	table    *connectionTable
	stopping atomic.Bool
}

func newFrontend(c HTTPConfig, m *processMetrics, log *slog.Logger) *frontend {
	setDefault(&c.HeaderTimeout, 10*time.Second)
	setDefault(&c.RequestTimeout, time.Hour)
	setDefault(&c.GracePeriod, 30*time.Second)
	setDefault(&c.ResponsePatience, 2*time.Minute)
	f := &frontend{config: c, metrics: m, log: log, echo: echo.New()}
	f.checks = append([]Check{{"shutdown", func(context.Context) error {
		if f.stopping.Load() {
			return errors.New("it is shutting down")
		}
		return nil
	}}}, c.Checks...)
	if c.Connections > 0 {
		f.table = newConnectionTable(c.Connections, log)
		m.connections(f.table)
	}
	f.echo.HideBanner, f.echo.HidePort = true, true
	f.echo.HTTPErrorHandler = writeError(log)
	f.echo.IPExtractor = echo.ExtractIPDirect()
	return f
}

// watchRoutes are for who watches the process. The metrics can be for some only.
func (f *frontend) watchRoutes(metrics ...echo.MiddlewareFunc) {
	get := func(path string, h echo.HandlerFunc) { f.echo.GET(path, h, middleware.BodyLimit("64K")) }
	get("/healthz", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "ok"}) })
	get("/readyz", f.ready)
	f.echo.GET("/metrics", echo.WrapHandler(f.metrics.handler()), metrics...)
}

// ServeHTTP makes the frontend an http.Handler.
func (f *frontend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	steady := &steadyResponse{w, http.NewResponseController(w), f.config.ResponsePatience}
	_ = steady.connection.SetWriteDeadline(time.Time{}) // of the request before
	defer steady.hurry()                                // net/http sends the end
	f.echo.ServeHTTP(steady, r)
}

// serve answers requests on l until ctx is cancelled. Then it lets requests in flight finish within the grace period, and returns nil.
func (f *frontend) serve(ctx context.Context, l net.Listener) error {
	if f.table != nil {
		l = f.table.bound(l)
	}
	if f.config.TLS != nil {
		l = tls.NewListener(l, f.config.TLS)
	}
	server := &http.Server{
		Handler: f, ReadHeaderTimeout: f.config.HeaderTimeout, ReadTimeout: f.config.RequestTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		f.stopping.Store(true)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.config.GracePeriod)
		defer cancel()
		err := server.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			f.log.Warn("requests were still in flight at the end of the grace period and were broken off")
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(l)
	if stop() { // not cancelled: the listener failed
		return err
	}
	return <-stopped
}

func setDefault(d *time.Duration, otherwise time.Duration) {
	if *d <= 0 {
		*d = otherwise
	}
}
