package webhook

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"grindstone/registry"
)

// A response that the client does not take is cut off, and the connection with it; one that it takes slowly is not, nor one that the server is slow with.
func TestResponsesMustBeTaken(t *testing.T) {
	const patience = 300 * time.Millisecond
	dir := t.TempDir()
	p, err := NewPipeline(PipelineConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := registry.New(registry.Config{Dir: dir, Intercept: func(string) bool { return false }, Admitter: p})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	server := NewServer(ServerConfig{Access: slow{pause: 2 * patience}, HTTPConfig: HTTPConfig{ResponsePatience: patience}}, p, gateway, slog.New(slog.DiscardHandler))
	blob := bytes.Repeat([]byte("weights "), 4<<20) // 32 MiB: more than the connection's buffers hold
	path := "/v2/open/x/blobs/" + digest.FromBytes(blob).String()
	for _, version := range []int{1, 2} {
		h := httptest.NewUnstartedServer(server)
		h.EnableHTTP2 = version == 2
		h.StartTLS()
		defer h.Close()
		r, err := h.Client().Post(h.URL+"/v2/open/x/blobs/uploads/?digest="+digest.FromBytes(blob).String(), "application/octet-stream", bytes.NewReader(blob))
		if err != nil || r.StatusCode != http.StatusCreated || r.ProtoMajor != version {
			t.Fatal(r, err)
		}
		r.Body.Close()
		for name, c := range map[string]struct {
			first, each time.Duration // pauses
			whole       bool
		}{
			"nothing is taken": {first: 2 * time.Second},
			"slowly":           {each: 5 * time.Millisecond, whole: true},
		} {
			r, err := h.Client().Get(h.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(c.first)
			n := 0
			for buffer := make([]byte, 128<<10); err == nil; {
				var m int
				m, err = io.ReadFull(r.Body, buffer)
				n += m
				time.Sleep(c.each)
			}
			r.Body.Close()
			if (n == len(blob)) != c.whole {
				t.Errorf("HTTP/%d, %s: %d of %d bytes come, then %v", version, name, n, len(blob), err)
			}
		}
	}
}

// slow takes its time with every request.
type slow struct {
	everybody
	pause time.Duration
}

func (s slow) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(s.pause)
		next.ServeHTTP(w, r)
	})
}

// A response may pause for as long as its server likes.
func TestResponsesMayPause(t *testing.T) {
	for _, version := range []int{1, 2} {
		h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s := &steadyResponse{w, http.NewResponseController(w), 50 * time.Millisecond}
			for range 3 {
				if _, err := io.WriteString(s, "event\n"); err != nil {
					t.Errorf("HTTP/%d: %v", version, err)
				}
				if err := http.NewResponseController(s).Flush(); err != nil {
					t.Errorf("HTTP/%d: %v", version, err)
				}
				time.Sleep(200 * time.Millisecond)
			}
		}))
		h.EnableHTTP2 = version == 2
		h.StartTLS()
		defer h.Close()
		r, err := h.Client().Get(h.URL)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || len(text) != 3*len("event\n") {
			t.Errorf("HTTP/%d: %q, %v", version, text, err)
		}
	}
}
