package webhook

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"grindstone/registry"
)

// Access says who makes a request and what they may do. In ServerConfig nil is for tests: everybody may do everything that is not
// an operator's.
type Access interface {
	// Middleware puts who makes the request into its context (registry.WithIdentity), or refuses wrong credentials.
	Middleware(next http.Handler) http.Handler
	// Allowed reports whether who makes the request may do that with a repository.
	Allowed(ctx context.Context, repository string, a registry.Action) bool
	// Pusher reports whether who makes the request may push somewhere: who may see admissions and metrics.
	Pusher(ctx context.Context) bool
}

// may returns nil or a refusal: an admission is seen by who may push to its repository.
func (s *Server) may(c echo.Context, repository string, action registry.Action) error {
	ctx := c.Request().Context()
	if s.access == nil || s.access.Allowed(ctx, repository, action) {
		return nil
	}
	return refused(ctx)
}

// mayOperate returns nil or a refusal to operate on an admission. Who may operate without logins at all, LoopbackOperators has said.
func (s *Server) mayOperate(c echo.Context, a *Admission) error {
	if registry.Identity(c.Request().Context()) == "" {
		return nil
	}
	return s.may(c, a.Source.Repository, registry.ActionOperate)
}

func refused(ctx context.Context) error {
	if registry.Identity(ctx) == "" {
		return &httpError{Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: ErrUnauthenticated.Error()}
	}
	return &httpError{Status: http.StatusForbidden, Code: "DENIED", Message: registry.Identity(ctx) + " may not do that"}
}

// visible reports whether who makes the request may see an admission.
func (s *Server) visible(ctx context.Context, a *Admission) bool {
	return s.access == nil || s.access.Allowed(ctx, a.Source.Repository, registry.ActionPush)
}

// pushersOnly lets through who may push somewhere. Of which repositories they see admissions, visible says.
func (s *Server) pushersOnly(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if ctx := c.Request().Context(); s.access != nil && !s.access.Pusher(ctx) {
			return refused(ctx)
		}
		return next(c)
	}
}
