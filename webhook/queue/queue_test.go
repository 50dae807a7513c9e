package queue

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const heartbeat = time.Second

func open(t *testing.T, c Config) *Queue {
	t.Helper()
	c.Heartbeat = heartbeat
	q, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

// shared opens a queue that others may join, and a second connection to it as another process would have.
func shared(t *testing.T) (server, worker *Queue) {
	t.Helper()
	server = open(t, Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "a token of sixteen"})
	return server, open(t, Config{URL: server.Address(), Token: "a token of sixteen"})
}

// job is one with a file in a folder of its own.
func job(t *testing.T, key string) Job {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "in", "sub"), 0o700), os.WriteFile(filepath.Join(dir, "in", "sub", "m.onnx"), []byte("model"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return Job{Key: key, Label: LabelAny, Server: "s", Dir: dir, In: []string{"sub/m.onnx"}, Model: "sub/m.onnx"}
}

// take takes one job and writes the sanitized model and the report of it.
func take(t *testing.T, q *Queue, name string) (*Delivery, context.Context, string) {
	t.Helper()
	taker, err := q.Taker(t.Context(), name, []string{"cuda", LabelAny})
	if err != nil {
		t.Fatal(err)
	}
	d, run, err := taker.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := d.Job.Dir
	if !d.Shared {
		dir = t.TempDir()
		if err := d.FetchInput(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "in", "sub", "m.onnx"))
	if err := errors.Join(err, os.MkdirAll(filepath.Join(dir, "out", "sub"), 0o700), os.WriteFile(filepath.Join(dir, "out", "sub", "m.onnx"), append(text, " sanitized"...), 0o600),
		os.WriteFile(filepath.Join(dir, "report.json"), []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return d, run, dir
}

func TestAJobThereAndBack(t *testing.T) {
	server, worker := shared(t)
	j := job(t, "a-0")
	var mu sync.Mutex
	var said []string
	go func() {
		d, _, dir := take(t, worker, "w")
		d.Progress([]byte("one"))
		d.Progress([]byte("two"))
		if err := d.Finish(t.Context(), dir, Result{Out: []string{"sub/m.onnx"}, Seconds: 1}); err != nil {
			t.Error(err)
		}
	}()
	var workers []string
	run, err := server.Ask(t.Context(), j, Listener{
		Worker: func(name string) { workers = append(workers, name) },
		Progress: func(line []byte) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, string(line))
		},
	})
	if err != nil || run.Result.Worker != "w" || run.Attempts != 1 {
		t.Fatalf("%+v, %v", run, err)
	}
	if workers = slices.Compact(workers); !slices.Equal(workers, []string{"", "w"}) {
		t.Errorf("the job's workers were %q; want nobody first", workers)
	}
	if text, err := os.ReadFile(filepath.Join(j.Dir, "out", "sub", "m.onnx")); err != nil || string(text) != "model sanitized" {
		t.Errorf("%q, %v", text, err)
	}
	mu.Lock()
	if !slices.Equal(said, []string{"one", "two"}) {
		t.Errorf("progress %q", said)
	}
	mu.Unlock()
	// Asked again, the same result is there, and nobody works for it.
	if again, err := server.Ask(t.Context(), j, Listener{}); err != nil || again.Result.Worker != "w" {
		t.Errorf("%+v, %v", again, err)
	}
	if err := server.Sweep(t.Context(), "another server", func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if left, err := server.Left(t.Context()); err != nil || len(left) == 0 {
		t.Errorf("another server's sweep takes everything: %v", err)
	}
	if err := server.Sweep(t.Context(), "s", func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if left, err := server.Left(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// TestAJobOfASilentWorker goes to another, and the silent one cannot finish it any more.
func TestAJobOfASilentWorker(t *testing.T) {
	server, worker := shared(t)
	asked := make(chan Run, 1)
	go func() {
		run, err := server.Ask(t.Context(), job(t, "a-0"), Listener{})
		if err != nil {
			t.Error(err)
		}
		asked <- run
	}()
	lost, _, dir := take(t, worker, "silent")
	lost.stop() // no more heartbeats
	d, _, dir2 := take(t, worker, "second")
	if d.Attempts != 1 {
		t.Errorf("%d attempts before", d.Attempts)
	}
	if err := lost.Finish(t.Context(), dir, Result{Out: []string{"sub/m.onnx"}}); !errors.Is(err, ErrLost) {
		t.Errorf("the silent worker finishes: %v", err)
	}
	if err := d.Finish(t.Context(), dir2, Result{Out: []string{"sub/m.onnx"}}); err != nil {
		t.Error(err)
	}
	if run := <-asked; run.Result.Worker != "second" || run.Attempts != 2 {
		t.Errorf("%+v", run)
	}
}

func TestAWithdrawnJob(t *testing.T) {
	server, worker := shared(t)
	asked := make(chan error, 1)
	go func() {
		_, err := server.Ask(t.Context(), job(t, "a-0"), Listener{})
		asked <- err
	}()
	d, run, dir := take(t, worker, "w")
	if err := server.Withdraw(t.Context(), "a-0"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-run.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the worker is not told")
	}
	if err := d.Finish(t.Context(), dir, Result{Reason: "x"}); !errors.Is(err, ErrLost) {
		t.Errorf("finished: %v", err)
	}
	if err := <-asked; !errors.Is(err, ErrWithdrawn) {
		t.Errorf("the server is told %v", err)
	}
}

// TestPrivateQueue shares the folder, counts attempts across a kill, and forgets results that nobody recorded.
func TestPrivateQueue(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Config{Dir: dir})
	if !q.Private() || q.Address() != "" {
		t.Error("it is not private")
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() { _, _ = q.Ask(ctx, job(t, "a-0"), Listener{}) }()
	d, _, _ := take(t, q, "w")
	if !d.Shared || d.Attempts != 0 {
		t.Errorf("%+v", d)
	}
	stop()
	q.Close() // as a kill would: neither finished nor returned
	q = open(t, Config{Dir: dir})
	go func() { _, _ = q.Ask(t.Context(), job(t, "a-0"), Listener{}) }()
	d, _, at := take(t, q, "w")
	if d.Attempts != 1 {
		t.Errorf("%d attempts before", d.Attempts)
	}
	if err := d.Finish(t.Context(), at, Result{Out: []string{"sub/m.onnx"}}); err != nil {
		t.Fatal(err)
	}
	q.Close()
	q = open(t, Config{Dir: dir})
	if left, err := q.Left(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left after a restart: %q, %v", left, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	server, _ := shared(t)
	for name, c := range map[string]Config{
		"wrong token":  {URL: server.Address(), Token: "another"},
		"no such file": {URL: server.Address(), Token: "a token of sixteen", Credentials: filepath.Join(t.TempDir(), "nothing")},
		"no cluster":   {URL: server.Address(), Token: "a token of sixteen", Replicas: 3},
	} {
		if _, err := Open(t.Context(), c); !errors.Is(err, ErrConnect) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.Context(), Config{Dir: t.TempDir(), Listen: "nowhere"}); !errors.Is(err, ErrServer) {
		t.Errorf("a bad address: %v", err)
	}
	if _, err := server.Taker(t.Context(), "w", []string{"*"}); err == nil {
		t.Error("a label that is a wildcard")
	}
}

// TestCheckStore: a queue that stores says so and keeps nothing of the question; one whose streams refuse to write does not.
func TestCheckStore(t *testing.T) {
	q := open(t, Config{Dir: t.TempDir()})
	if err := q.CheckStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := q.Left(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left of the question: %q, %v", left, err)
	}
	full := q.jobs.CachedInfo().Config
	full.MaxBytes, full.Discard = 1, jetstream.DiscardNew
	if _, err := q.js.UpdateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	if err := q.CheckStore(t.Context()); !errors.Is(err, ErrStore) {
		t.Errorf("a stream that takes nothing: %v", err)
	}
}

// TestForgedJobs: who can write to the queue cannot have a process that also works itself go into a folder of its own that it did not name, nor any worker into
// one outside its own.
func TestForgedJobs(t *testing.T) {
	server, worker := shared(t)
	forge := func(j Job, key string) {
		t.Helper()
		text, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := worker.runs.Create(t.Context(), key, Run{Server: "s"}.encode()); err != nil {
			t.Fatal(err)
		}
		if _, err := worker.js.Publish(t.Context(), subjectJobs+".any."+key, text); err != nil {
			t.Fatal(err)
		}
	}
	j := job(t, "a-0")
	j.Owner = server.owner // anybody reads it in the server's jobs
	forge(j, j.Key)
	taker, err := server.Taker(t.Context(), "own", []string{LabelAny})
	if err != nil {
		t.Fatal(err)
	}
	if d, _, err := taker.Take(t.Context()); err != nil || d.Shared {
		t.Errorf("a folder that another process named is this one's: %+v, %v", d, err)
	}
	// What was asked for is done as it was asked for, whatever its message has become.
	go func() { _, _ = server.Ask(t.Context(), job(t, "b-0"), Listener{}) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := server.runs.Get(t.Context(), "b-0"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the job is not there")
		}
	}
	d, _, err := taker.Take(t.Context())
	if err != nil || !d.Shared {
		t.Fatalf("%+v, %v", d, err)
	}
	real := d.Job.Dir
	if err := errors.Join(d.Return(t.Context()), server.jobs.Purge(t.Context(), jetstream.WithPurgeSubject(subjectJobs+".any.b-0"))); err != nil {
		t.Fatal(err)
	}
	forged := Job{Key: "b-0", Owner: server.owner, Dir: t.TempDir(), Model: "x"}
	text, _ := json.Marshal(forged)
	if _, err := worker.js.Publish(t.Context(), subjectJobs+".any.b-0", text); err != nil {
		t.Fatal(err)
	}
	if d, _, err := taker.Take(t.Context()); err != nil || d.Job.Dir != real || d.Job.Model != "sub/m.onnx" {
		t.Errorf("%+v, %v", d, err)
	}
	// A key is the name of a folder.
	forge(Job{Key: "/"}, "/")
	go func() { _, _ = worker.Ask(t.Context(), job(t, "c-0"), Listener{}) }()
	if d, _, err := taker.Take(t.Context()); err != nil || d.Job.Key != "c-0" {
		t.Errorf("%+v, %v", d, err)
	}
}
