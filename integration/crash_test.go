package integration

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"grindstone/sanitize"
	"grindstone/webhook"
)

// TestKilledWithTheRealSanitizer kills -9 the real sanitizer while it trains, then the server while it does: the model is held, and
// another push of it is sanitized anew and released by the server's next start.
func TestKilledWithTheRealSanitizer(t *testing.T) {
	needRuntime(t)
	config := writeConfig(t, t.TempDir(), "trainer: {steps: 6000, batch: 32, learning_rate: 0.05}\n")
	args := []string{"--config", config, "--data", tinyImages(t)}
	s := startServer(t, args...)
	const repository = "models/a"
	model := tiny{}.file(t)

	s.pushCrane(repository, "v1", model)
	first := s.admission(repository).ID
	if err := syscall.Kill(s.trainingSanitizer(first), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a := s.await(repository, time.Minute)
	if a.State != webhook.Held || a.Reason != webhook.ReasonCrashed || !strings.Contains(a.Message, "killed") {
		t.Fatalf("%s %s: %s; want held %s", a.State, a.Reason, a.Message, webhook.ReasonCrashed)
	}

	s.pushCrane(repository, "v1", model)
	if again := s.admission(repository); again.ID != first || again.State.Final() {
		t.Errorf("pushed again, admission %s is %s; it was %s", again.ID, again.State, first)
	}
	child := s.trainingSanitizer(first)
	s.Kill()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(child, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the sanitizer %d outlives its server", child)
		}
	}

	s = startServerIn(t, s.dir, args...)
	a = s.await(repository, 10*time.Minute)
	if a.State != webhook.Released || a.ID != first {
		t.Fatalf("%s is %s %s: %s", a.ID, a.State, a.Reason, a.Message)
	}
	out, err := s.grindstone("verify", s.address+"/"+repository+":v1", "--key", filepath.Join(s.dir, "keys", "grindstone.pub"))
	if err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// trainingSanitizer waits until the admission's sanitizer trains, and returns its process id.
func (s *server) trainingSanitizer(id string) int {
	s.Helper()
	s.follow(id, func(event string, data []byte) bool {
		if strings.Contains(string(data), s.dir) {
			s.Errorf("the progress tells clients the server's folders: %s", data)
		}
		var p sanitize.Progress
		return event == "progress" && json.Unmarshal(data, &p) == nil && p.Phase == "grind"
	})
	for pid, command := range s.children() {
		if strings.Contains(command, " sanitize ") {
			return pid
		}
	}
	s.Fatalf("the server has no sanitizer: %v", s.children())
	return 0
}
