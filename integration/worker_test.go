package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"grindstone/internal/shared"
	"grindstone/internal/testprocess"
	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// startWorker runs `grindstone worker` until the test ends, and waits until it takes jobs.
func startWorker(t *testing.T, config string) *testprocess.Process {
	t.Helper()
	cmd := exec.Command(binary(t), "worker", "--config", config, "--dir", t.TempDir())
	return testprocess.Start(t, cmd, func(line string) bool { return strings.Contains(line, " takes jobs (") })
}

// TestServerAndWorkersApart has one server that only asks, and real workers of other processes: one is killed in the middle of a real
// run, and another does it again.
func TestServerAndWorkersApart(t *testing.T) {
	model, err := os.ReadFile(shared.Path(t, "models", "vnncomp-cifar10_medium_nhwc.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	data := shared.Path(t, "data", "cifar10", "test.tar.gz")
	needRuntime(t)
	dir, at := t.TempDir(), testregistry.FreePort(t)
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("the secret of servers and workers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	common := "datasets: {default: " + data + "}\ntrainer: {steps: 600, learning_rate: 0.02, batch: 64}\npolicy: {data: {settings: {max_cda_loss: 0.5}}}\n"
	s := startServer(t, "--config", writeConfig(t, dir, common+"sanitizer: {workers: 0}\nqueue: {listen: \""+at+"\", token_file: token, heartbeat: 2s}\n"))
	if !strings.Contains(s.greeting, "workers join at nats://"+at) {
		t.Errorf("the greeting does not tell workers where to join:\n%s", s.greeting)
	}
	s.pushORAS("models/medium", "v1", nil, layerFile{"", "application/vnd.oci.empty.v1+json", []byte("{}")}, layerFile{"model.onnx", "application/octet-stream", model})

	if out, err := s.grindstone("worker", "--queue", "nats://"+at, "--data", data, "--dir", t.TempDir()); err == nil || !strings.Contains(strings.ToLower(out), "authorization") {
		t.Errorf("a worker without the secret: %v\n%s", err, out)
	}
	remote := t.TempDir()
	if err := os.WriteFile(filepath.Join(remote, "token"), []byte("the secret of servers and workers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := writeConfig(t, remote, fmt.Sprintf("datasets: {default: %s}\nqueue: {url: \"nats://%s\", token_file: token, heartbeat: 2s}\n", data, at))
	first := startWorker(t, config)
	id := s.admission("models/medium").ID
	s.follow(id, func(event string, line []byte) bool {
		return event == "progress" && strings.Contains(string(line), `"phase":"grind"`)
	})
	first.Kill()
	second := startWorker(t, config)
	a := s.await("models/medium", 5*time.Minute)
	if a.State != webhook.Released || a.Attempts != 2 {
		t.Fatalf("%s %s: %s after %d attempts\n%s", a.State, a.Reason, a.Message, a.Attempts, second.Stderr)
	}
	reference := s.address + "/models/medium:v1"
	if out, err := s.grindstone("verify", reference, "--key", filepath.Join(s.dir, "keys", "grindstone.pub")); err != nil || !strings.Contains(out, a.Released.Digest) {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// TestWorkersUsage: what a worker needs is said at once.
func TestWorkersUsage(t *testing.T) {
	for words, args := range map[string][]string{
		"no queue is named":         {"--data", "."},
		"no clean dataset is named": {"--queue", "nats://127.0.0.1:4222"},
		"is no URL of NATS":         {"--queue", "http://127.0.0.1:4222", "--data", "."},
		"queue.labels[0]":           {"--queue", "nats://127.0.0.1:1", "--data", ".", "--labels", "UPPER"},
	} {
		out, err := exec.Command(binary(t), append([]string{"worker"}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), words) {
			t.Errorf("%q: %v, without %q:\n%s", args, err, words, out)
		}
	}
}

// TestWorkerWaitsForItsQueue in words, and ends when it is told to.
func TestWorkerWaitsForItsQueue(t *testing.T) {
	cmd := exec.Command(binary(t), "worker", "--queue", "nats://"+testregistry.FreePort(t), "--data", ".", "--dir", t.TempDir())
	w := testprocess.Start(t, cmd, nil)
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(w.Stderr.String(), "the queue cannot be used yet"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say that it waits:\n%s", w.Stderr)
		}
	}
	if err := w.Stop(); err != nil {
		t.Errorf("it ends with %v\n%s", err, w.Stderr)
	}
}
