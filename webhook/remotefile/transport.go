package remotefile

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// Transport ends requests to a server that stands still: what is sent, or comes, has to move.
type Transport struct{ Base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, transfer := WhileMoving(r.Context())
	watched := r.WithContext(ctx)
	sending := func(body io.ReadCloser) io.ReadCloser { return readCloser{transfer.Sending(body), body.Close} }
	if r.Body != nil && r.Body != http.NoBody {
		watched.Body = sending(r.Body)
	}
	if r.GetBody != nil { // for a connection that was closed before it was used
		watched.GetBody = func() (io.ReadCloser, error) {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			return sending(body), nil
		}
	}
	answer, err := t.Base.RoundTrip(watched)
	if err != nil {
		err = Why(ctx, err)
		transfer.Stop()
		return nil, err
	}
	coming := answer.Body
	answer.Request, answer.Body = r, readCloser{stalls{ctx, transfer.Reader(coming)}, func() error {
		transfer.Stop()
		return coming.Close()
	}}
	return answer, nil
}

type readCloser struct {
	io.Reader
	close func() error
}

func (r readCloser) Close() error { return r.close() }

// stalls says why a body ends too early.
type stalls struct {
	ctx context.Context
	r   io.Reader
}

func (s stalls) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = Why(s.ctx, err)
	}
	return n, err
}
