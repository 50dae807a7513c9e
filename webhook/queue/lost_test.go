package queue

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// finishAll has a worker do every job that there is until the test ends.
func finishAll(t *testing.T, q *Queue, name string) {
	t.Helper()
	taker, err := q.Taker(t.Context(), name, []string{LabelAny})
	if err != nil {
		t.Fatal(err)
	}
	var working sync.WaitGroup
	t.Cleanup(working.Wait)
	working.Go(func() {
		for {
			d, _, err := taker.Take(t.Context())
			if err != nil {
				return
			}
			dir, err := os.MkdirTemp("", "finish")
			if err == nil {
				defer os.RemoveAll(dir)
				err = errors.Join(d.FetchInput(t.Context(), dir), os.Rename(filepath.Join(dir, "in"), filepath.Join(dir, "out")), os.WriteFile(filepath.Join(dir, reportFile), []byte("{}"), 0o600))
			}
			if err == nil {
				err = d.Finish(t.Context(), dir, Result{Out: d.Job.In})
			}
			if err != nil {
				_ = d.Again(100 * time.Millisecond)
			}
		}
	})
}

// TestLostStreams: whatever of the queue somebody deletes, or NATS loses with its files, while servers and workers run, is made again, and every job is done.
func TestLostStreams(t *testing.T) {
	all, url := nodes(t, 1)
	all[0].Cluster = server.ClusterOpts{}
	all[0].Routes = nil
	stop := runNode(t, all[0])
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	asker, worker := open(t, Config{URL: url, Log: log}), open(t, Config{URL: url, Log: log})
	for name, lose := range map[string]func(ctx context.Context) error{
		"the jobs":        func(ctx context.Context) error { return asker.js.DeleteStream(ctx, streamJobs) },
		"the runs":        func(ctx context.Context) error { return asker.js.DeleteKeyValue(ctx, bucketRuns) },
		"the files":       func(ctx context.Context) error { return asker.js.DeleteObjectStore(ctx, bucketFiles) },
		"a job's message": func(ctx context.Context) error { return asker.jobs.Purge(ctx) },
		"everything, while NATS is away": func(context.Context) error {
			stop()
			err := os.RemoveAll(all[0].StoreDir)
			stop = runNode(t, all[0])
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			asked := make(chan error, 1)
			j := job(t, "a-0")
			go func() {
				for { // as the pipeline's step: a job that is withdrawn is asked for again
					_, err := asker.Ask(ctx, j, Listener{})
					if !errors.Is(err, ErrWithdrawn) {
						asked <- err
						return
					}
				}
			}()
			for depth := 0; depth == 0 && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
				depth, _ = asker.Depth(ctx)
			}
			time.Sleep(100 * time.Millisecond) // the server waits for the result
			if err := lose(ctx); err != nil {
				t.Fatal(err)
			}
			finishAll(t, worker, "w")
			if err := <-asked; err != nil {
				t.Fatal(err)
			}
			if err := asker.Withdraw(t.Context(), j.Key); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAWorkerOutlivesLostStreams: one that waits for jobs takes those of a stream that was made anew.
func TestAWorkerOutlivesLostStreams(t *testing.T) {
	asker, worker := shared(t)
	finishAll(t, worker, "w")
	if _, err := asker.Ask(t.Context(), job(t, "a-0"), Listener{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(asker.js.DeleteStream(t.Context(), streamJobs), asker.js.DeleteKeyValue(t.Context(), bucketRuns)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := asker.Ask(ctx, job(t, "b-0"), Listener{}); err != nil {
		t.Error(err)
	}
}

// TestAWorkerThatForgets: a worker that has a job's message removed and vanishes does not keep the job; while it is silent nobody is said to work on it.
func TestAWorkerThatForgets(t *testing.T) {
	asker, worker := shared(t)
	var mu sync.Mutex
	var workers []string
	asked := make(chan error, 1)
	go func() {
		_, err := asker.Ask(t.Context(), job(t, "a-0"), Listener{Worker: func(name string) {
			mu.Lock()
			defer mu.Unlock()
			if len(workers) == 0 || workers[len(workers)-1] != name {
				workers = append(workers, name)
			}
		}})
		asked <- err
	}()
	d, _, _ := take(t, worker, "first")
	time.Sleep(3 * heartbeat)
	mu.Lock()
	if !slices.Equal(workers, []string{"", "first"}) {
		t.Errorf("while it beats, the job's workers are %q", workers)
	}
	mu.Unlock()
	if err := d.msg.Ack(); err != nil {
		t.Fatal(err)
	}
	d.Abandon()
	for deadline := time.Now().Add(10 * heartbeat); ; time.Sleep(50 * time.Millisecond) {
		mu.Lock()
		silent := workers[len(workers)-1] == ""
		mu.Unlock()
		if silent {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the job's workers are %q", workers)
		}
	}
	finishAll(t, worker, "second")
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

// TestHeartbeatsEnd: a worker that hangs loses its job in the end.
func TestHeartbeatsEnd(t *testing.T) {
	asker, worker := shared(t)
	asked := make(chan error, 1)
	go func() {
		_, err := asker.Ask(t.Context(), job(t, "a-0"), Listener{})
		asked <- err
	}()
	taker, err := worker.Taker(t.Context(), "hangs", []string{LabelAny})
	if err != nil {
		t.Fatal(err)
	}
	taker.Most = 2 * heartbeat
	_, run, err := taker.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	finishAll(t, worker, "second")
	select {
	case err := <-asked:
		if err != nil || run.Err() == nil {
			t.Errorf("%v, and the run of the first is %v", err, run.Err())
		}
	case <-time.After(30 * time.Second):
		t.Error("the job stays with a worker that hangs")
	}
}

// TestALateRunOverwritesNothing: a worker that has lost its job and stores its files all the same does not touch those of the one that has it.
func TestALateRunOverwritesNothing(t *testing.T) {
	asker, worker := shared(t)
	j := job(t, "a-0")
	asked := make(chan error, 1)
	go func() {
		_, err := asker.Ask(t.Context(), j, Listener{})
		asked <- err
	}()
	late, _, dir := take(t, worker, "late")
	late.stop()
	d, _, dir2 := take(t, worker, "second")
	if err := errors.Join(d.store(t.Context(), dir2, j.In), os.WriteFile(filepath.Join(dir, "out", "sub", "m.onnx"), []byte("another"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := late.Finish(t.Context(), dir, Result{Out: j.In}); !errors.Is(err, ErrLost) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(d.Finish(t.Context(), dir2, Result{Out: j.In}), <-asked); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(j.Dir, "out", "sub", "m.onnx")); err != nil || string(text) != "model sanitized" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestManyFiles: a job whose names are more than a message holds is refused at once where others do the work, and done where they need not know.
func TestManyFiles(t *testing.T) {
	many := func(key string) Job {
		j := job(t, key)
		for range 20_000 {
			j.In = append(j.In, strings.Repeat("x", 60))
		}
		return j
	}
	asker, _ := shared(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := asker.Ask(ctx, many("a-0"), Listener{}); !errors.Is(err, ErrJob) {
		t.Errorf("%v", err)
	}
	private := open(t, Config{Dir: t.TempDir()})
	go func() { _, _ = private.Ask(ctx, many("b-0"), Listener{}) }()
	if d, _, dir := take(t, private, "w"); len(d.Job.In) != 20_001 {
		t.Errorf("%d files", len(d.Job.In))
	} else if err := d.Finish(ctx, dir, Result{Out: []string{"sub/m.onnx"}}); err != nil {
		t.Error(err)
	}
}

// TestWhatIsNoRun under a key keeps nobody from sweeping.
func TestWhatIsNoRun(t *testing.T) {
	asker, _ := shared(t)
	if _, err := asker.runs.Put(t.Context(), "a-0", []byte("zeros")); err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(Run{Server: "s"})
	if _, err := asker.runs.Put(t.Context(), "b-0", text); err != nil {
		t.Fatal(err)
	}
	if err := asker.Sweep(t.Context(), "s", nothingWanted); err != nil {
		t.Error(err)
	}
	if left, err := asker.Left(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// TestAnotherTokenForAWhile: a NATS server that came back with another token, and then with the right one, is reached again.
func TestAnotherTokenForAWhile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dir, at := t.TempDir(), l.Addr().String()
	first := open(t, Config{Dir: dir, Listen: at, Token: "a token of sixteen"})
	q := open(t, Config{URL: "nats://" + at, Token: "a token of sixteen"})
	first.Close()
	other := open(t, Config{Dir: dir, Listen: at, Token: "another token of sixteen"})
	time.Sleep(5 * time.Second) // it is refused twice
	other.Close()
	open(t, Config{Dir: dir, Listen: at, Token: "a token of sixteen"})
	for deadline := time.Now().Add(20 * time.Second); q.Check(t.Context()) != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v", q.Check(t.Context()))
		}
	}
}

// TestReplicasStay: a process that asks for fewer replicas, as a worker that was told nothing of them, takes none away.
func TestReplicasStay(t *testing.T) {
	all, urls := nodes(t, 3)
	for _, o := range all {
		runNode(t, o)
	}
	three := open(t, Config{URL: urls, Replicas: 3})
	if err := three.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := open(t, Config{URL: urls}).wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{streamJobs, "KV_" + bucketRuns, "OBJ_" + bucketFiles} {
		s, err := three.js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().Config.Replicas; n != 3 {
			t.Errorf("%s has %d replicas", name, n)
		}
	}
}

// TestFinishAgain: a worker that could not record its result, because the queue did not answer or is full, keeps the job until it can.
func TestFinishAgain(t *testing.T) {
	asker, worker := shared(t)
	asked := make(chan Run, 1)
	j := job(t, "a-0")
	go func() {
		run, err := asker.Ask(t.Context(), j, Listener{})
		if err != nil {
			t.Error(err)
		}
		asked <- run
	}()
	d, run, dir := take(t, worker, "first")
	away, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Finish(away, dir, Result{Out: j.In}); err == nil || errors.Is(err, ErrLost) {
		t.Fatalf("%v", err)
	}
	runs, err := asker.js.Stream(t.Context(), "KV_"+bucketRuns)
	if err != nil {
		t.Fatal(err)
	}
	full := runs.CachedInfo().Config
	full.MaxBytes = 1
	if _, err := asker.js.UpdateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	if err := d.Finish(t.Context(), dir, Result{Out: j.In}); err == nil || errors.Is(err, ErrLost) {
		t.Fatalf("a full queue: %v", err)
	}
	full.MaxBytes = -1
	if _, err := asker.js.UpdateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	finishAll(t, worker, "second")
	time.Sleep(4 * heartbeat)
	if run.Err() != nil {
		t.Error("the job is another's")
	}
	if err := d.Finish(t.Context(), dir, Result{Out: j.In}); err != nil {
		t.Error(err)
	}
	if run := <-asked; run.Result.Worker != "first" {
		t.Errorf("%+v", run)
	}
}

// TestAFolderMadeAnew: a result of this process whose files are gone is not taken for one with files.
func TestAFolderMadeAnew(t *testing.T) {
	q := open(t, Config{Dir: t.TempDir()})
	finish := func() {
		d, _, dir := take(t, q, "w")
		if err := d.Finish(t.Context(), dir, Result{Out: d.Job.In}); err != nil {
			t.Error(err)
		}
	}
	go finish()
	if _, err := q.Ask(t.Context(), job(t, "a-0"), Listener{}); err != nil {
		t.Fatal(err)
	}
	anew := job(t, "a-0")
	go finish()
	if _, err := q.Ask(t.Context(), anew, Listener{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(anew.Dir, reportFile)); err != nil {
		t.Error(err)
	}
}

// TestSmallMessages: a cluster that takes small messages only carries models all the same.
func TestSmallMessages(t *testing.T) {
	all, url := nodes(t, 1)
	all[0].Cluster, all[0].Routes, all[0].MaxPayload = server.ClusterOpts{}, nil, 16<<10
	runNode(t, all[0])
	asker, worker := open(t, Config{URL: url}), open(t, Config{URL: url})
	finishAll(t, worker, "w")
	j := job(t, "a-0")
	if err := os.WriteFile(filepath.Join(j.Dir, "in", "sub", "m.onnx"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := asker.Ask(ctx, j, Listener{}); err != nil {
		t.Error(err)
	}
}
