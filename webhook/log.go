package webhook

import (
	"log/slog"
	"regexp"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"grindstone/registry"
)

const headerRequestID = echo.HeaderXRequestID

var goodRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// identify gives every request an id: the client's, when it is fit for a log, or a new one.
func identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(headerRequestID)
		if !goodRequestID.MatchString(id) {
			id = uuid.NewString()
		}
		c.Response().Header().Set(headerRequestID, id)
		return next(c)
	}
}

func requestID(c echo.Context) string { return c.Response().Header().Get(headerRequestID) }

// logRequests writes one line per request when it is through, and measures it. Probes and metrics are logged at debug level.
func logRequests(log *slog.Logger, m *processMetrics) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			begin := time.Now()
			if err := next(c); err != nil {
				c.Error(err)
			}
			took, r, status := time.Since(begin), c.Request(), c.Response().Status
			m.request(r.Method, c.Path(), status, took)
			level := slog.LevelInfo
			switch c.Path() {
			case "/healthz", "/readyz", "/metrics":
				level = slog.LevelDebug
			}
			log.Log(r.Context(), level, "request", "request_id", requestID(c), "method", r.Method, "path", r.URL.Path, "status", status,
				"bytes", c.Response().Size, "seconds", took.Seconds(), "remote", c.RealIP(), "identity", registry.Identity(r.Context()), "user_agent", printable(r.UserAgent(), 120))
			return nil
		}
	}
}
