package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
)

// takeUpload answers a request of an upload from a store on this disk. Content that comes with the first request goes through a session as all other does,
// because olareg v0.2.2 answers such a request 201 unread where it has a blob of that digest, and keeps what came of one that was cut off.
func (g *Gateway) takeUpload(w http.ResponseWriter, r *http.Request, rt route, query url.Values, to *store) error {
	switch {
	case rt.reference != "":
		return g.continueUpload(w, r, rt, query)
	case r.Method != http.MethodPost:
		return to.forward(w, r, rt, query)
	}
	d := query.Get("digest")
	query.Del("digest")
	begun, at, err := g.beginUpload(r, rt, query, to)
	if err != nil {
		return err
	}
	if at == nil || d == "" {
		return begun.send(w, begun.body.Bytes())
	}
	rt.reference = path.Base(at.Path)
	defer g.endUpload(r.Context(), rt.reference) // unless it has come to its end
	query = at.Query()
	query.Set("digest", d)
	put := r.Clone(r.Context())
	put.Method = http.MethodPut
	return g.continueUpload(w, put, rt, query)
}

// beginUpload has a store begin an upload, if there is room for one. It returns the answer and where the upload goes on: nil if none began, as when a blob was mounted.
func (g *Gateway) beginUpload(r *http.Request, rt route, query url.Values, to *store) (*reply, *url.URL, error) {
	who := Identity(r.Context())
	idle, ok := g.uploads.reserve(who, g.limits)
	for session, s := range idle {
		g.cancelUpload(r.Context(), session, s)
	}
	if !ok {
		return nil, nil, refuse(http.StatusTooManyRequests, codeTooManyRequests, "too many uploads are open: finish some, or try again later")
	}
	defer g.uploads.settle()
	begun := &reply{header: http.Header{}}
	if err := to.forward(begun, withBody(r, nil), rt, query); err != nil || begun.status != http.StatusAccepted {
		return begun, nil, err
	}
	at, err := url.Parse(begun.header.Get("Location"))
	if err != nil {
		return nil, nil, fmt.Errorf("the store's upload: %w", err)
	}
	g.uploads.begin(path.Base(at.Path), &upload{who: who, repository: rt.repository, store: to})
	return begun, at, nil
}

// continueUpload answers a request of an upload that has begun. What quarantine takes is noted as the identity's before the client is told. A PUT that is refused
// for what it says is the end of its upload, as one that is taken is; after any other the client may go on.
func (g *Gateway) continueUpload(w http.ResponseWriter, r *http.Request, rt route, query url.Values) error {
	unknown := refuse(http.StatusNotFound, codeBlobUploadUnknown, "no such upload, or no more: begin another")
	s, ok := g.uploads.use(rt.reference, Identity(r.Context()), rt.repository)
	if !ok {
		return unknown
	}
	d, err := parseDigest(query.Get("digest"))
	if r.Method == http.MethodPut && err != nil {
		g.endUpload(r.Context(), rt.reference)
		return refuse(http.StatusBadRequest, codeDigestInvalid, "an upload ends with a valid digest, which %.200q is not: begin it again", query.Get("digest"))
	}
	body, err := g.limitUpload(r, s)
	if err != nil {
		return err
	}
	answer := &reply{header: http.Header{}}
	if err := s.store.forward(answer, r, rt, query); err != nil {
		return err
	}
	refused, taken := answer.status == http.StatusBadRequest, answer.status == http.StatusCreated
	if taken || r.Method == http.MethodDelete && answer.status == http.StatusNoContent {
		g.uploads.end(rt.reference)
	}
	switch {
	case body.exceeded: // it can never be finished
		g.endUpload(r.Context(), rt.reference)
		return g.tooLarge()
	case refused && answer.says(string(codeBlobUploadUnknown)):
		g.uploads.end(rt.reference)
		return unknown
	case refused && answer.says("invalid digest"): // the store has ended it
		g.uploads.end(rt.reference)
		return refuse(http.StatusBadRequest, codeDigestInvalid, "the upload does not have the digest %s: begin it again", d)
	case refused && r.Method == http.MethodPut:
		g.endUpload(r.Context(), rt.reference)
	case taken && s.store == g.quarantine:
		if err := g.holders.add(rt.repository, s.who, d); err != nil {
			return err
		}
	}
	return answer.send(w, answer.body.Bytes())
}

// endUpload ends an upload that is open, and the store's with it.
func (g *Gateway) endUpload(ctx context.Context, session string) {
	if s := g.uploads.end(session); s != nil {
		g.cancelUpload(ctx, session, s)
	}
}

// cancelUpload has a store give up an upload that has lost its place.
func (g *Gateway) cancelUpload(ctx context.Context, session string, s *upload) {
	at := route{kind: uploads, repository: s.repository, reference: session}
	if _, err := s.store.call(context.WithoutCancel(ctx), http.MethodDelete, at.path(), "", nil); err != nil {
		g.log.Warn("an upload cannot be ended", "repository", s.repository, "cause", err)
	}
}
