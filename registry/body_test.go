package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// What the server does with a body, and after it, may take as long as it likes: only the client is hurried.
func TestSlowServersAreNotCutOff(t *testing.T) {
	const grace = 400 * time.Millisecond
	g := &Gateway{limits: Limits{BodyGrace: grace, BodyRate: 1 << 20}}
	body := bytes.Repeat([]byte("x"), 8<<20) // more than the connection's buffers hold
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer g.Steady(w, r)()
		time.Sleep(3 * grace)
		if n, err := io.CopyN(io.Discard, r.Body, 1<<20); err != nil {
			t.Errorf("%s: after %d bytes: %v", r.Proto, n, err)
		}
		time.Sleep(3 * grace)
		if rest, err := io.ReadAll(r.Body); len(rest) != 7<<20 || err != nil {
			t.Errorf("%s: then %d bytes, %v", r.Proto, len(rest), err)
		}
		time.Sleep(3 * grace)
		if err := r.Context().Err(); err != nil {
			t.Errorf("%s: after the body: %v", r.Proto, err)
		}
	})
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP %d", version), func(t *testing.T) {
			t.Parallel()
			h := httptest.NewUnstartedServer(handler)
			h.EnableHTTP2 = version == 2
			h.StartTLS()
			defer h.Close()
			for range 2 { // the connection is as good as before
				r, err := h.Client().Post(h.URL, "application/octet-stream", bytes.NewReader(body))
				if err != nil || r.ProtoMajor != version {
					t.Fatal(r, err)
				}
				r.Body.Close()
			}
		})
	}
}
