package registry

import (
	"context"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Action is what a request does to a repository.
type Action string

// The actions, each of which needs a right.
const (
	ActionPull    Action = "pull"    // read what is released
	ActionPush    Action = "push"    // upload and push
	ActionOperate Action = "operate" // read what is in quarantine
)

// access finds out whether the request may do what it asks for, and whose it is. Its error is the answer to the client. Where
// the upstream decides, it decides about requests to repositories that are not intercepted itself, when it gets them.
func (g *Gateway) access(r *http.Request, rt route) (*http.Request, error) {
	if g.upstream != nil && g.upstream.passThrough {
		if rt.kind == base || rt.kind == catalog || !g.intercept(rt.repository) || action(r, rt) == ActionPull {
			return r, nil
		}
		return g.upstreamIdentity(r, rt)
	}
	if g.authorize == nil {
		return r, nil
	}
	switch rt.kind {
	case base: // who gets here has shown who he is, or needs not
		return r, nil
	case catalog: // shows what may be pulled
		return r, nil
	}
	if err := g.allowed(r.Context(), rt.repository, action(r, rt)); err != nil {
		return r, err
	}
	if from := r.URL.Query().Get("from"); rt.kind == uploads && validName(from) {
		return r, g.allowed(r.Context(), from, ActionPull)
	}
	return r, nil
}

// upstreamIdentity finds out who pushes where the upstream checks credentials. An error is its refusal.
func (g *Gateway) upstreamIdentity(r *http.Request, rt route) (*http.Request, error) {
	who, err := g.upstream.pusher(r, rt.repository)
	if err != nil {
		return r, err
	}
	return r.WithContext(WithIdentity(r.Context(), who)), nil
}

func action(r *http.Request, rt route) Action {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	if read && rt.kind != uploads {
		return ActionPull
	}
	return ActionPush
}

// allowed returns nil or a refusal: 401 with a challenge to who has not said who he is, else 403.
func (g *Gateway) allowed(ctx context.Context, repository string, a Action) error {
	if g.authorize(ctx, repository, a) {
		return nil
	}
	who := Identity(ctx)
	if who == "" {
		e := refuse(http.StatusUnauthorized, codeUnauthorized, "log in to %s %s", a, repository)
		e.header = http.Header{"Www-Authenticate": {g.challenge}}
		return e
	}
	return refuse(http.StatusForbidden, codeDenied, "%s may not %s %s", who, a, repository)
}

// insider reports whether the request may read this manifest or blob in quarantine: its identity pushed it, or is an operator.
func (g *Gateway) insider(r *http.Request, rt route) bool {
	return g.entitled(g.identified(r, rt).Context(), rt.repository, rt.digest)
}

// identified returns a read with the identity of who makes it, which is not yet known where the upstream checks credentials: none if it refuses them.
func (g *Gateway) identified(r *http.Request, rt route) *http.Request {
	if g.upstream == nil || !g.upstream.passThrough || r.Header.Get("Authorization") == "" {
		return r
	}
	known, err := g.upstreamIdentity(r, rt)
	if err != nil {
		return r.WithContext(WithIdentity(r.Context(), ""))
	}
	return known
}

func (g *Gateway) entitled(ctx context.Context, repository string, d digest.Digest) bool {
	who := Identity(ctx)
	if who == "" {
		return false
	}
	return g.holders.has(repository, who, d) || g.authorize != nil && g.authorize(ctx, repository, ActionOperate)
}

// holds reports whether the request's identity has shown that it has this content, so that it may be told that quarantine has it too.
// All who are anonymous are one, and the empty JSON object is everybody's.
func (g *Gateway) holds(ctx context.Context, repository string, d digest.Digest) bool {
	return d == ocispec.DescriptorEmptyJSON.Digest || g.holders.has(repository, Identity(ctx), d) || g.entitled(ctx, repository, d)
}
