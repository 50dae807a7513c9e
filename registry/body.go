package registry

import (
	"io"
	"net/http"
	"time"
)

// steadyBody is a request's body that must keep coming: its connection is cut when less than the rate has come after the grace. Whoever
// sends a byte a minute would otherwise hold a connection, a file and a place among the uploads for as long as a request may take.
type steadyBody struct {
	io.ReadCloser
	connection *http.ResponseController
	begun      time.Time
	limits     Limits
	read       int64 // bytes so far
}

// steady makes the body of a request steady, where it has one.
func steady(w http.ResponseWriter, r *http.Request, limits Limits) {
	if r.Body == nil || r.Body == http.NoBody || limits.BodyRate == 0 {
		return
	}
	r.Body = &steadyBody{ReadCloser: r.Body, connection: http.NewResponseController(w), begun: time.Now(), limits: limits}
}

func (b *steadyBody) Read(p []byte) (int, error) {
	l := b.limits
	late := b.begun.Add(l.BodyGrace + time.Duration(float64(b.read)/float64(l.BodyRate)*float64(time.Second)))
	if soon := time.Now().Add(l.BodyGrace); soon.Before(late) { // what came fast earns no long pause
		late = soon
	}
	if end := b.begun.Add(l.BodyTime); l.BodyTime > 0 && end.Before(late) {
		late = end
	}
	_ = b.connection.SetReadDeadline(late) // where that is not supported, as in tests, the body is not limited
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}
