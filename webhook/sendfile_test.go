package webhook

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"grindstone/registry"
)

// connection is the writer of a connection that can send files itself, as net/http's does with sendfile.
type connection struct {
	*httptest.ResponseRecorder
	files int64 // bytes that came from files
}

func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseRecorder, r)
	if part, ok := r.(*io.LimitedReader); ok {
		if _, ok := part.R.(*os.File); ok { // the two that net/http looks for
			c.files += n
		}
	}
	return n, err
}

// everybody may do everything.
type everybody struct{}

func (everybody) Middleware(next http.Handler) http.Handler             { return next }
func (everybody) Allowed(context.Context, string, registry.Action) bool { return true }
func (everybody) Pusher(context.Context) bool                           { return true }

// TestBlobsAreSentAsFiles pulls a blob from a server whose connection can send files: nothing between that and the store may hide it, with logins and without.
func TestBlobsAreSentAsFiles(t *testing.T) {
	for name, access := range map[string]Access{"without logins": nil, "with logins": everybody{}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p, err := NewPipeline(PipelineConfig{Dir: dir, Sanitizer: SanitizerConfig{Command: []string{"none"}}})
			if err != nil {
				t.Fatal(err)
			}
			gateway, err := registry.New(registry.Config{Dir: dir + "/registry", Intercept: func(string) bool { return false }, Admitter: p})
			if err != nil {
				t.Fatal(err)
			}
			defer gateway.Close()
			var log bytes.Buffer
			server := NewServer(ServerConfig{Access: access}, p, gateway, slog.New(slog.NewTextHandler(&log, nil)))
			blob := bytes.Repeat([]byte("weights "), 1<<17)
			d := digest.FromBytes(blob)
			pushed := httptest.NewRecorder()
			server.ServeHTTP(pushed, httptest.NewRequest(http.MethodPost, "/v2/open/x/blobs/uploads/?digest="+d.String(), bytes.NewReader(blob)))
			if pushed.Code != http.StatusCreated {
				t.Fatalf("push: %d %s", pushed.Code, pushed.Body)
			}
			for want, part := range map[string]string{string(blob): "", string(blob[3:1003]): "bytes=3-1002"} {
				log.Reset()
				r := httptest.NewRequest(http.MethodGet, "/v2/open/x/blobs/"+d.String(), nil)
				status := http.StatusOK
				if part != "" {
					r.Header.Set("Range", part)
					status = http.StatusPartialContent
				}
				c := &connection{ResponseRecorder: httptest.NewRecorder()}
				server.ServeHTTP(c, r)
				if c.Code != status || c.Body.String() != want {
					t.Errorf("pull of %q: %d with %d bytes, not %d with %d", part, c.Code, c.Body.Len(), status, len(want))
				}
				if c.files != int64(len(want)) {
					t.Errorf("pull of %q: %d of %d bytes came as a file", part, c.files, len(want))
				}
				if line := fmt.Sprintf("status=%d bytes=%d ", status, len(want)); !strings.Contains(log.String(), line) {
					t.Errorf("pull of %q: the log lacks %q: %s", part, line, &log)
				}
			}
		})
	}
}
