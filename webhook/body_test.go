package webhook

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"grindstone/registry"
)

// stranger has no credentials that are right.
type stranger struct{ everybody }

func (stranger) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// A body that trickles in is cut off wherever it goes, whether or not the client has shown who it is, and whether or not anybody reads it.
func TestBodiesMustBeSteady(t *testing.T) {
	dir := t.TempDir()
	p, err := NewPipeline(PipelineConfig{Dir: dir, Events: []EventSource{{Kind: "distribution", Secret: testSecret}}})
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := registry.New(registry.Config{
		Dir: dir, Intercept: func(string) bool { return true }, Admitter: p, Limits: registry.Limits{BodyGrace: 300 * time.Millisecond, BodyRate: 1 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	h := httptest.NewServer(NewServer(ServerConfig{Access: stranger{}}, p, gateway, slog.New(slog.DiscardHandler)))
	defer h.Close()
	for name, head := range map[string]string{
		"push event":            "POST /api/v1/events/distribution HTTP/1.1",
		"operation":             "POST /api/v1/admissions/a/approve HTTP/1.1",
		"garbage":               "POST /api/v1/gc HTTP/1.1",
		"nobody reads it":       "GET /healthz HTTP/1.1",
		"no route":              "POST /nothing/here HTTP/1.1",
		"refused":               "PUT /v2/models/a/manifests/v1 HTTP/1.1\r\nAuthorization: Bearer x",
		"manifest":              "PUT /v2/models/a/manifests/v1 HTTP/1.1",
		"manifest, in parts":    "PUT /v2/models/a/manifests/v1 HTTP/1.1\r\nExpect: 100-continue",
		"nobody reads it: pull": "GET /v2/models/a/manifests/v1 HTTP/1.1",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", h.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			begin := time.Now()
			fmt.Fprintf(c, "%s\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n", head)
			go func() {
				for range 100 {
					if _, err := io.WriteString(c, " "); err != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
			if err := c.SetReadDeadline(begin.Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(c)
			if took := time.Since(begin); took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
