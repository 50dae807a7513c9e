package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"grindstone/internal/testprocess"
	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// watchedWorker is a real worker that answers health and metrics.
type watchedWorker struct {
	*testing.T
	*testprocess.Process
	url string
}

func startWatchedWorker(t *testing.T, args ...string) *watchedWorker {
	t.Helper()
	w := &watchedWorker{T: t}
	cmd := exec.Command(binary(t), append([]string{"worker", "--listen", "127.0.0.1:0", "--dir", t.TempDir()}, args...)...)
	w.Process = testprocess.Start(t, cmd, func(line string) bool {
		at, found := strings.CutPrefix(line, "health and metrics at ")
		if found {
			w.url = at
		}
		return found
	})
	return w
}

// unready asks for the checks of /readyz that do not hold.
func (w *watchedWorker) unready() (names []string) {
	w.Helper()
	var answer struct {
		Ready  bool
		Checks []struct {
			Name, Reason string
			Ready        bool
		}
	}
	status := testprocess.Get(w.T, w.url+"/readyz", &answer)
	for _, c := range answer.Checks {
		if !c.Ready {
			names = append(names, c.Name)
		}
		if c.Ready == (c.Reason != "") || strings.Contains(c.Reason, "/") {
			w.Errorf("the check %s: ready %v, reason %q", c.Name, c.Ready, c.Reason)
		}
	}
	if (status == http.StatusOK) != answer.Ready || answer.Ready != (len(names) == 0) || len(answer.Checks) != 5 {
		w.Errorf("readyz: %d %+v", status, answer)
	}
	return names
}

func (w *watchedWorker) awaitUnready(want ...string) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		got := w.unready()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("not ready: %q, want %q", got, want)
		}
	}
}

// checkMetrics waits until the metrics have these lines.
func (w *watchedWorker) checkMetrics(lines ...string) {
	w.Helper()
	for _, line := range lines {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			var text string
			if status := testprocess.Get(w.T, w.url+"/metrics", &text); status != http.StatusOK {
				w.Fatalf("metrics: %d", status)
			}
			if strings.Contains("\n"+text, "\n"+line) {
				break
			}
			if time.Now().After(deadline) {
				w.Errorf("the metrics lack %s:\n%s", line, text)
				break
			}
		}
	}
}

// TestWatchedWorker: whoever runs a worker learns whether it lives, whether it can work, and what it does.
func TestWatchedWorker(t *testing.T) {
	needRuntime(t)
	images, at := tinyImages(t), testregistry.FreePort(t)
	config := writeConfig(t, t.TempDir(), fmt.Sprintf("datasets: {default: %s}\nqueue: {url: \"nats://%s\", heartbeat: 2s}\nlog: {level: debug}\n", images, at))
	w := startWatchedWorker(t, "--config", config)
	alive := func() {
		t.Helper()
		if status := testprocess.Get(t, w.url+"/healthz", nil); status != http.StatusOK {
			t.Errorf("healthz: %d", status)
		}
	}
	alive()
	w.awaitUnready("queue")
	w.checkMetrics("grindstone_queue_connected 0\n")

	dir := t.TempDir()
	serving := []string{"--config", writeConfig(t, t.TempDir(), "trainer: {steps: 60, batch: 32, learning_rate: 0.05}\nsanitizer: {workers: 0}\n"+
		"policy: {data: {settings: {max_cda_loss: 0.5}}}\nqueue: {listen: \""+at+"\", heartbeat: 2s}\n"), "--data", images}
	s := startServerIn(t, dir, serving...)
	w.awaitUnready()
	s.pushCrane("models/a", "v1", tiny{name: "a"}.file(t))
	if a := s.await("models/a", 5*time.Minute); a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	s.pushCrane("models/b", "v1", tiny{name: "b", shift: 1}.file(t))
	if a := s.await("models/b", 5*time.Minute); a.Reason != webhook.ReasonAccuracy {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	w.checkMetrics("grindstone_queue_connected 1\n", `grindstone_worker_jobs_total{result="ok"} 1`, `grindstone_worker_jobs_total{result="accuracy-at-chance"} 1`,
		`grindstone_worker_sanitize_seconds_count{outcome="ok"} 1`, "grindstone_worker_working 0\n", `grindstone_build_info{commit="`, "process_resident_memory_bytes ",
		"grindstone_connections ", `grindstone_http_request_seconds_count{code="200",method="GET",route="/readyz"}`)

	hidden := images + ".gone"
	if err := os.Rename(images, hidden); err != nil {
		t.Fatal(err)
	}
	w.awaitUnready("datasets")
	if err := os.Rename(hidden, images); err != nil {
		t.Fatal(err)
	}
	w.awaitUnready()
	s.Kill()
	w.awaitUnready("queue")
	alive()

	begun := time.Now()
	if err := w.Stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it ends after %v", took)
	}
	if strings.Contains(w.Stderr.String(), "level=ERROR msg=\"request failed") {
		t.Error("an answer is an error of the worker's own")
	}
}

// TestWatchedWorkerStops: a worker that is stopped gives its job back. While it cannot, it lives and is not ready.
func TestWatchedWorkerStops(t *testing.T) {
	needRuntime(t)
	images, at := tinyImages(t), testregistry.FreePort(t)
	s := startServer(t, "--config", writeConfig(t, t.TempDir(), "trainer: {steps: 200000, batch: 32, learning_rate: 0.05}\nsanitizer: {workers: 0}\nqueue: {listen: \""+at+"\", heartbeat: 2s}\n"),
		"--data", images)
	w := startWatchedWorker(t, "--queue", "nats://"+at, "--data", images)
	s.pushCrane("models/a", "v1", tiny{name: "a"}.file(t))
	w.checkMetrics("grindstone_worker_working 1\n")
	if err := w.Stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	again := startWatchedWorker(t, "--queue", "nats://"+at, "--data", images)
	again.checkMetrics("grindstone_worker_working 1\n")
	if a := s.admission("models/a"); a.Attempts > 1 {
		t.Errorf("%d attempts", a.Attempts)
	}
	s.Kill()
	if err := syscall.Kill(again.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	again.awaitUnready("queue", "shutdown")
	if status := testprocess.Get(t, again.url+"/healthz", nil); status != http.StatusOK {
		t.Errorf("healthz: %d", status)
	}
}

// TestWatchedWorkerBoundsClients: whoever sends a head or a body slowly is cut off, and further clients than have a place wait.
func TestWatchedWorkerBoundsClients(t *testing.T) {
	config := writeConfig(t, t.TempDir(), "datasets: {default: .}\nqueue: {url: \"nats://"+testregistry.FreePort(t)+"\"}\nlimits: {connections: 2}\nworker: {listen: \"127.0.0.1:0\"}\n")
	w := &watchedWorker{T: t}
	w.Process = testprocess.Start(t, exec.Command(binary(t), "worker", "--config", config, "--dir", filepath.Join(t.TempDir(), "w")), func(line string) bool {
		at, found := strings.CutPrefix(line, "health and metrics at ")
		w.url = at
		return found
	})
	send := func(text string) net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, _ = io.WriteString(c, text)
		return c
	}
	begun := time.Now()
	send("GET /healthz HTTP/1.1\r\nHost:")
	send("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbody")
	third := send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	_ = third.SetReadDeadline(begun.Add(time.Minute))
	answer, err := io.ReadAll(third)
	if took := time.Since(begun); err != nil || took < 5*time.Second || !strings.Contains(string(answer), "grindstone_connections_full_total") {
		t.Errorf("after %v: %v\n%s", took, err, answer)
	}
	if !strings.Contains(w.Stderr.String(), "limits.connections=2") {
		t.Error("the log does not say that all connections were taken")
	}
}

// TestAWorkerWithoutTheLibrary takes no jobs: it would hold every model for what its machine lacks.
func TestAWorkerWithoutTheLibrary(t *testing.T) {
	needRuntime(t)
	images, at := tinyImages(t), testregistry.FreePort(t)
	s := startServer(t, "--config", writeConfig(t, t.TempDir(), "trainer: {steps: 60, batch: 32, learning_rate: 0.05}\nsanitizer: {workers: 0}\n"+
		"policy: {data: {settings: {max_cda_loss: 0.5}}}\nqueue: {listen: \""+at+"\"}\n"), "--data", images)
	cmd := exec.Command(binary(t), "worker", "--queue", "nats://"+at, "--data", images, "--dir", t.TempDir())
	cmd.Env = append(os.Environ(), "ORT_LIBRARY="+filepath.Join(t.TempDir(), "nothing"))
	lacks := testprocess.Start(t, cmd, func(line string) bool { return strings.Contains(line, " takes jobs (") })
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(lacks.Stderr.String(), "takes no jobs while something is missing"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say what it lacks:\n%s", lacks.Stderr)
		}
	}
	s.pushCrane("models/a", "v1", tiny{name: "a"}.file(t))
	time.Sleep(3 * time.Second)
	if a := s.admission("models/a"); a.State.Final() {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	startWatchedWorker(t, "--queue", "nats://"+at, "--data", images)
	if a := s.await("models/a", 5*time.Minute); a.State != webhook.Released {
		t.Errorf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	if err := lacks.Stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
