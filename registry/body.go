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
	read       int64         // bytes so far
	waited     time.Duration // for them
	over       bool          // it has ended, or its time has
}

// Steady makes the body of a request steady, before anybody reads it or refuses the request. Call what it returns when the request is answered.
func (g *Gateway) Steady(w http.ResponseWriter, r *http.Request) (answered func()) {
	b := steady(w, r, g.limits)
	if b == nil {
		return func() {}
	}
	// Of HTTP/1, net/http reads itself what nobody has read of a body, before it sends an answer or when it has.
	if r.ProtoMajor == 1 {
		b.hurry()
	}
	return func() {
		if !b.over {
			b.hurry()
		}
	}
}

// steady makes the body of a request steady, where it has one and is not yet.
func steady(w http.ResponseWriter, r *http.Request, limits Limits) *steadyBody {
	if _, already := r.Body.(*steadyBody); already || r.Body == nil || r.Body == http.NoBody || limits.BodyRate == 0 {
		return nil
	}
	b := &steadyBody{ReadCloser: r.Body, connection: http.NewResponseController(w), begun: time.Now(), limits: limits}
	r.Body = b
	return b
}

// Read counts only the time that the client takes. What else takes long, as a registry behind this one, is not the client's doing.
func (b *steadyBody) Read(p []byte) (int, error) {
	begun := time.Now()
	b.hurry()
	n, err := b.ReadCloser.Read(p)
	b.read, b.waited = b.read+int64(n), b.waited+time.Since(begun)
	if b.over = b.over || err != nil; !b.over {
		_ = b.connection.SetReadDeadline(time.Time{}) // of HTTP/2, a body ends when its deadline passes, also while nobody reads
	}
	return n, err
}

// hurry has the next bytes come in time, or not at all.
func (b *steadyBody) hurry() {
	l := b.limits
	earned := l.BodyGrace + time.Duration(float64(b.read)/float64(l.BodyRate)*float64(time.Second)) - b.waited
	patience := min(earned, l.BodyGrace) // what came fast earns no long pause
	if l.BodyTime > 0 {
		patience = min(patience, time.Until(b.begun.Add(l.BodyTime)))
	}
	_ = b.connection.SetReadDeadline(time.Now().Add(patience)) // where that is not supported, as in tests, the body is not limited
}
