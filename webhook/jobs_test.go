package webhook

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"grindstone/sanitize"
	"grindstone/webhook/queue"
)

// TestLabels: what the policy gives to CUDA waits for a worker that has that label, while one that has not does the rest.
func TestLabels(t *testing.T) {
	dir := policies(t, sanitizesOtherwise, releases)
	const admission = `package grindstone.admission
parameters := {"provider": "cuda"} if startswith(input.repository, "gpu/") else := {}
decision := {"action": "sanitize", "method": "feature-grinding", "transformation": "permute", "dataset": "default", "parameters": parameters}
`
	if err := os.WriteFile(filepath.Join(dir, "admission.rego"), []byte(admission), 0o600); err != nil {
		t.Fatal(err)
	}
	at := freePort(t)
	url := "nats://" + at
	s := startServer(t, t.TempDir(), "-queue-listen", at, "-workers", "0", "-policy", dir)
	startWorker(t, url, "ok")
	gpu := s.pushModel("gpu/a", "v1", "a").Digest.String()
	s.become(gpu, Sanitizing)
	for _, name := range []string{"b", "c"} { // by the worker of the machine without a GPU, which is idle
		s.checkReleased("cpu/"+name, "v1", name, s.become(s.pushModel("cpu/"+name, "v1", name).Digest.String(), Released))
	}
	if a := s.admissions("?digest=" + gpu)[0]; a.State != Sanitizing || a.Attempts != 0 {
		t.Errorf("without a worker for it, it is %s after %d attempts", a.State, a.Attempts)
	}
	startWorker(t, url, "ok", "-labels", "cuda any")
	s.checkReleased("gpu/a", "v1", "a", s.become(gpu, Released))
	checkQueueEmpty(t, url)
}

// TestWaitsForAWorker: while no worker has taken a job, nobody works on its admission: the metrics and the record in the API say so.
func TestWaitsForAWorker(t *testing.T) {
	at := freePort(t)
	s := startServer(t, t.TempDir(), "-queue-listen", at, "-workers", "0")
	id := s.pushModel("models/a", "v1", "a").Digest.String()
	become := func(waiting, working int, waits bool) {
		t.Helper()
		depths := fmt.Sprintf("\ngrindstone_queue_depth %d\n", waiting)
		works := fmt.Sprintf("\ngrindstone_working %d\n", working)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			var metrics string
			s.get("/metrics", &metrics)
			var list struct{ Admissions []View }
			s.get("/api/v1/admissions?digest="+id, &list)
			if strings.Contains(metrics, depths) && strings.Contains(metrics, works) && list.Admissions[0].Waits == waits {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no%s and%s, or waits %v, not %v", depths, works, list.Admissions[0].Waits, waits)
			}
		}
	}
	s.become(id, Sanitizing)
	become(1, 0, true)
	startWorker(t, "nats://"+at, "slow-1s")
	become(0, 1, false)
	s.become(id, Released)
	become(0, 0, false)
}

// TestWorkerArguments: every limit that the worker has comes to the sanitizer, and what is no limit does not.
func TestWorkerArguments(t *testing.T) {
	for name, c := range map[string]struct {
		config SanitizerConfig
		job    queue.Job
		want   []string
	}{
		"no limit": {SanitizerConfig{}, queue.Job{Args: []string{"--batch", "8"}}, []string{"--batch", "8"}},
		"all": {
			SanitizerConfig{Memory: 4, Model: sanitize.Limits{Bytes: 1, Nodes: 2, Tensors: 3}, Provider: "cpu", Sandbox: "require", Threads: 5}, queue.Job{},
			[]string{"--provider", "cpu", "--sandbox", "require", "--threads", "5", "--max-bytes", "1", "--max-nodes", "2", "--max-tensors", "3", "--memory-limit", "4"},
		},
		"the decision's provider": {SanitizerConfig{Provider: "cpu"}, queue.Job{Provider: "cuda"}, []string{"--provider", "cuda"}},
	} {
		if got := (&Worker{Sanitizer: c.config}).args(c.job); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestHeartbeat: a run that takes longer than the heartbeat's time stays its worker's, though another worker waits for jobs.
func TestHeartbeat(t *testing.T) {
	s, url := sharedQueue(t, t.TempDir())
	startWorker(t, url, "slow-6s")
	startWorker(t, url, "slow-6s")
	s.pushModel("models/a", "v1", "a")
	a := s.settle()[0]
	s.checkReleased("models/a", "v1", "a", a)
	if a.Attempts != 1 || a.Runs != 1 {
		t.Errorf("%d attempts in %d runs", a.Attempts, a.Runs)
	}
}

// TestARunThatCannotBeRecorded: while the disk takes no record, what the sanitizer wrote is kept, and not done again.
func TestARunThatCannotBeRecorded(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "slow-1s")
	digest := s.pushModel("models/a", "v1", "a").Digest.String()
	s.become(digest, Sanitizing)
	records := filepath.Join(s.dir, "state", "admissions")
	if err := os.Rename(records, records+".away"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(s.Stderr.String(), "tried again"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server does not say that it cannot record")
		}
	}
	time.Sleep(2 * time.Second)
	if err := os.Rename(records+".away", records); err != nil {
		t.Fatal(err)
	}
	a := s.settle()[0]
	s.checkReleased("models/a", "v1", "a", a)
	if n := strings.Count(s.Stderr.String(), `msg="job done"`); n != 1 {
		t.Errorf("%d runs", n)
	}
}

// TestDamagedRecords: a record that is JSON and lacks what its state needs takes nothing down. Its model is held, and others go on.
func TestDamagedRecords(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "hang", "-queue-listen", freePort(t), "-workers", "0")
	s.pushModel("models/a", "v1", "a")
	s.pushModel("models/b", "v1", "b")
	for len(s.admissions("?state=sanitizing")) < 2 {
		time.Sleep(20 * time.Millisecond)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	records, err := filepath.Glob(filepath.Join(s.dir, "state", "admissions", "*.json"))
	if err != nil || len(records) != 2 {
		t.Fatal(records, err)
	}
	for path, change := range map[string]func(map[string]any){
		records[0]: func(a map[string]any) { a["decision"] = nil },
		records[1]: func(a map[string]any) { a["source"].(map[string]any)["models"] = nil },
	} {
		var record map[string]any
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, &record)
		}
		if err != nil {
			t.Fatal(err)
		}
		change(record)
		if text, err = json.Marshal(record); err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s = startServer(t, s.dir)
	good := s.pushModel("models/c", "v1", "c").Digest.String()
	s.become(good, Released)
	for _, a := range s.settle() {
		if a.Source.Digest != good && (a.State != Held || a.Reason != ReasonInternal || strings.Contains(a.Message, "panic")) {
			t.Errorf("%s %s %s", a.State, a.Reason, a.Message)
		}
	}
}
