package webhook

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"

	"oras.land/oras-go/v2/registry/remote"

	"grindstone/registry"
)

// inProcess is a transport to a handler of this process. Bodies stream in both directions.
type inProcess struct {
	handler  http.Handler
	identity string // of who makes the requests
}

type ingesting struct{}

// IsIngest reports whether a request is the server's own, on behalf of a push event: nobody outside can make one.
func IsIngest(ctx context.Context) bool { return ctx.Value(ingesting{}) != nil }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := context.WithValue(registry.WithIdentity(r.Context(), t.identity), ingesting{}, true)
	inner := r.Clone(ctx)
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	body, write := io.Pipe()
	w := &pipedResponse{header: http.Header{}, body: write, begun: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { body.CloseWithError(ctx.Err()) })
	go func() {
		defer stop()
		defer write.Close()
		defer inner.Body.Close()
		defer func() { // as net/http does for a connection
			if p := recover(); p != nil {
				write.CloseWithError(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		t.handler.ServeHTTP(w, inner)
		w.WriteHeader(http.StatusOK)
	}()
	select {
	case <-w.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	length, err := strconv.ParseInt(w.sent.Get("Content-Length"), 10, 64)
	if err != nil {
		length = -1
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: body, ContentLength: length, Request: r,
	}, nil
}

// pipedResponse is a ResponseWriter whose body is read at the other end of a pipe.
type pipedResponse struct {
	header, sent http.Header
	body         *io.PipeWriter
	once         sync.Once
	status       int
	begun        chan struct{}
}

func (w *pipedResponse) Header() http.Header { return w.header }

func (w *pipedResponse) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

func (w *pipedResponse) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// ownHost is this server to itself.
const ownHost = "grindstone.internal"

// ownRepository is a repository of this server, as a client sees it.
func (p *Pipeline) ownRepository(name, identity string) (*remote.Repository, error) {
	repo, err := remote.NewRepository(ownHost + "/" + name)
	if err != nil {
		return nil, err
	}
	repo.PlainHTTP, repo.Client = true, &http.Client{Transport: inProcess{p.registry, identity}}
	return repo, nil
}
