package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"grindstone/auth"
	"grindstone/registry"
	"grindstone/webhook"
)

// access joins the logins with the server: it is what webhook asks who makes a request, and the registry what they may do.
type access struct {
	*auth.Authenticator
	logins      bool // somebody can log in
	passThrough bool // under /v2/ the upstream decides
	wrap        func(http.Handler) http.Handler
}

var (
	_ webhook.Access    = (*access)(nil)
	_ webhook.Operators = (*access)(nil)
)

func newAccess(c Config, log *slog.Logger) (*access, error) {
	settings := c.authentication()
	settings.Log = log
	a, err := auth.New(settings)
	if err != nil {
		return nil, err
	}
	return &access{Authenticator: a, logins: c.logins(), passThrough: c.passThrough(), wrap: a.Middleware(registry.WithIdentity)}, nil
}

// Middleware authenticates, except where the upstream does.
func (a *access) Middleware(next http.Handler) http.Handler {
	authenticated := a.wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.passThrough && (r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/")) {
			next.ServeHTTP(w, r)
			return
		}
		authenticated.ServeHTTP(w, r)
	})
}

// Allowed maps what the registry does to roles.
func (a *access) Allowed(ctx context.Context, repository string, action registry.Action) bool {
	role := map[registry.Action]auth.Role{
		registry.ActionPull: auth.Pull, registry.ActionPush: auth.Push, registry.ActionOperate: auth.Operator,
	}[action]
	return a.Authenticator.Allowed(ctx, repository, role)
}

// Pusher reports whether who makes the request may push somewhere.
func (a *access) Pusher(ctx context.Context) bool { return a.Has(ctx, auth.Push) }

// everywhere is the name of no repository, which only the pattern ** matches.
const everywhere = "\x00/\x00"

// Operator implements webhook.Operators. On which admissions an operator may operate, Allowed says; what is not about an admission is for
// operators of everything.
func (a *access) Operator(r *http.Request) (string, error) {
	if !a.logins {
		return webhook.LoopbackOperators{}.Operator(r)
	}
	who := registry.Identity(r.Context())
	switch {
	case who == "":
		return "", webhook.ErrUnauthenticated
	case !a.Has(r.Context(), auth.Operator),
		!strings.HasPrefix(r.URL.Path, "/api/v1/admissions/") && !a.Authenticator.Allowed(r.Context(), everywhere, auth.Operator):
		return "", errors.New(who + " does not have the role operator")
	}
	return who, nil
}

// authorize is the registry's question, nil where the upstream decides.
func (a *access) authorize() func(context.Context, string, registry.Action) bool {
	if a.passThrough {
		return nil
	}
	return a.Allowed
}
