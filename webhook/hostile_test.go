package webhook

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"grindstone/webhook/queue"
)

// TestHostileWorker: what a worker says is no more believed than what a sanitizer says. Its reasons are those that there are, and its words fit for people, for
// the metrics, and for the server's memory.
func TestHostileWorker(t *testing.T) {
	s, url := sharedQueue(t, t.TempDir())
	q, err := queue.Open(t.Context(), queue.Config{URL: url, Heartbeat: testHeartbeat})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	taker, err := q.Taker(t.Context(), "hostile", []string{queue.LabelAny})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		result queue.Result
		reason Reason
	}{
		{queue.Result{Reason: "made-up-\x1b[2J", Message: "x", Seconds: -1e300}, ReasonInvalidOutput},
		{queue.Result{Reason: string(ReasonRejected), Message: "x"}, ReasonInvalidOutput},
		{queue.Result{Reason: string(ReasonFailed), Message: "\x1b[2J" + strings.Repeat("long ", 50_000), Seconds: 1e300}, ReasonFailed},
	} {
		repository := fmt.Sprint("models/", i)
		s.pushModel(repository, "v1", fmt.Sprint(i))
		d, _, err := taker.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d.Progress([]byte(`{"phase": "long", "message": "` + strings.Repeat("x", 900_000) + `"}`))
		d.Progress([]byte(`{"phase": "grind", "message": "\u001b[2J` + strings.Repeat("y", 10_000) + `"}`))
		if err := d.Finish(t.Context(), t.TempDir(), c.result); err != nil {
			t.Fatal(err)
		}
		s.settle()
		got := s.admissions("?repository=" + repository)[0]
		if got.State != Held || got.Reason != c.reason || len(got.Message) > 2000 || strings.Contains(got.Message, "\x1b") {
			t.Errorf("%d: %s %s %.100q (%d bytes)", i, got.State, got.Reason, got.Message, len(got.Message))
		}
		var log string
		if s.get("/api/v1/admissions/"+got.ID+"/logs", &log); len(log) > 100_000 || strings.Contains(log, "u001b") || !strings.Contains(log, "grind") {
			t.Errorf("%d: the log has %d bytes: %.300q", i, len(log), log)
		}
	}
	var metrics string
	s.get("/metrics", &metrics)
	if strings.Contains(metrics, "made-up") || !strings.Contains(metrics, `grindstone_sanitize_seconds_sum{outcome="sanitizer-failed"} 0`) {
		t.Errorf("a worker makes metrics:\n%s", metrics)
	}
}

// TestOutputThatChanges: what is released is what was looked at. A sanitizer that leaves a process behind, out of its group, could write to it later.
func TestOutputThatChanges(t *testing.T) {
	s := startServer(t, t.TempDir(), "-stop", "attesting recorded")
	s.pushModel("models/a", "v1", "a")
	s.reach()
	s.Kill()
	written, err := filepath.Glob(filepath.Join(s.dir, "work", "*", "out", "model.onnx"))
	if err != nil || len(written) != 1 {
		t.Fatal(written, err)
	}
	if err := os.WriteFile(written[0], []byte("another model"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, s.dir)
	if a := s.settle()[0]; a.State != Held || a.Reason != ReasonInvalidOutput || !strings.Contains(a.Message, "changed") {
		t.Errorf("%s %s %s", a.State, a.Reason, a.Message)
	}
}

// TestManyFilesBesideAModel: a package whose names are more than a message of the queue holds does not wait for good. Where this process does the work, they need not be told.
func TestManyFilesBesideAModel(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add("model.onnx", testModel("a"))
	for i := range 6000 {
		add(fmt.Sprintf("images/%s/%d.png", strings.Repeat("x", 180), i), nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	shared, _ := sharedQueue(t, t.TempDir())
	for name, c := range map[string]struct {
		server *serverProcess
		state  State
		reason Reason
	}{"others do the work": {shared, Held, ReasonNoModel}, "alone": {startServer(t, t.TempDir()), Released, ""}} {
		if _, err := c.server.push("models/a", "v1", map[string][]byte{"models.tar": archive.Bytes()}); err != nil {
			t.Fatal(err)
		}
		if a := c.server.settle()[0]; a.State != c.state || a.Reason != c.reason {
			t.Errorf("%s: %s %s: %s", name, a.State, a.Reason, a.Message)
		}
	}
}
