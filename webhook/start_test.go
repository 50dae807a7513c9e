package webhook

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStartsBeforeItsQueue: a server and a worker that start while the queue is out of reach wait for it. Pushes are taken meanwhile, the server says that it
// is not ready, and both can be stopped.
func TestStartsBeforeItsQueue(t *testing.T) {
	at := freePort(t)
	url := "nats://" + at
	s := startServer(t, t.TempDir(), "-queue", url, "-workers", "0")
	w := startWorker(t, url, "ok")
	s.pushModel("models/a", "v1", "a")
	var ready string
	if status := s.get("/readyz", &ready); status != http.StatusServiceUnavailable || !strings.Contains(ready, "queue cannot be reached") {
		t.Errorf("without its queue the server says %d %s", status, ready)
	}
	for name, log := range map[string]string{"server": s.Stderr.String(), "worker": w.Stderr.String()} {
		if !strings.Contains(log, "the queue cannot be used yet; it is tried again") {
			t.Errorf("the %s does not say what it waits for:\n%s", name, log)
		}
	}
	w.stop()
	w = startWorker(t, url, "ok")
	if err := s.Stop(); err != nil {
		t.Errorf("a server that waits for its queue ends with %v", err)
	}
	s = startServer(t, s.dir, "-queue", url, "-workers", "0")

	startProcess(t, "queue", filepath.Join(t.TempDir(), "queue"), at)
	s.checkReleased("models/a", "v1", "a", s.settle()[0])
	for deadline := time.Now().Add(20 * time.Second); s.get("/readyz", &ready) != http.StatusOK; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("with its queue the server says %s", ready)
		}
	}
	checkQueueEmpty(t, url)
	w.stop()
}
