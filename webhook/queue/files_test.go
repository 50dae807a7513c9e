package queue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func nothingWanted(string) bool { return false }

// TestSweepFindsFilesOfNoRun: a worker that did not hear in time that its job was withdrawn leaves its files in the queue.
func TestSweepFindsFilesOfNoRun(t *testing.T) {
	server, worker := shared(t)
	asked := make(chan error, 1)
	go func() {
		_, err := server.Ask(t.Context(), job(t, "a-0"), Listener{})
		asked <- err
	}()
	d, _, dir := take(t, worker, "w")
	if err := server.Withdraw(t.Context(), "a-0"); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; !errors.Is(err, ErrWithdrawn) {
		t.Fatal(err)
	}
	if left, err := server.Left(t.Context()); err != nil || len(left) > 0 {
		t.Fatalf("left of a withdrawn job: %q, %v", left, err)
	}
	if err := d.Finish(t.Context(), dir, Result{Out: []string{"sub/m.onnx"}}); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	if left, err := server.Left(t.Context()); err != nil || len(left) == 0 {
		t.Fatalf("the late worker left nothing: there is nothing to test (%v)", err)
	}
	if err := server.Sweep(t.Context(), "another server", nothingWanted); err != nil {
		t.Fatal(err)
	}
	if left, err := server.Left(t.Context()); err != nil || len(left) == 0 {
		t.Errorf("another server's sweep takes the files: %v", err)
	}
	if err := server.Sweep(t.Context(), "s", nothingWanted); err != nil {
		t.Fatal(err)
	}
	if left, err := server.Left(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left after the sweep: %q, %v", left, err)
	}
	if info, err := server.fileStream.Info(t.Context()); err != nil || info.State.Msgs != 0 {
		t.Errorf("the stream of the files keeps %d messages, %v", info.State.Msgs, err)
	}
}

// TestStrayChunks: a process that is killed while it stores a file leaves chunks that nothing names.
func TestStrayChunks(t *testing.T) {
	server, _ := shared(t)
	j := job(t, "a-0")
	if err := server.putIn(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	add := func() {
		t.Helper()
		if _, err := server.js.Publish(t.Context(), chunkSubject("cutoff"), []byte("half a model")); err != nil {
			t.Fatal(err)
		}
	}
	add()
	for i, want := range []int{1, 1, 0} { // it is found, and has grown; it has not
		if err := server.sweepChunks(t.Context()); err != nil {
			t.Fatal(err)
		}
		if stray, err := server.strayChunks(t.Context()); err != nil || len(stray) != want {
			t.Errorf("sweep %d: stray chunks %q, %v; want %d", i+1, stray, err, want)
		}
		if i == 0 {
			add()
		}
	}
	if err := server.getFiles(t.Context(), inFolder(j.Key), t.TempDir(), j.In, 1<<20); err != nil {
		t.Errorf("the file that is whole: %v", err)
	}
}

// TestAFileForAQueueThatDied is given up after a while: no acknowledgement comes of a node that is gone.
func TestAFileForAQueueThatDied(t *testing.T) {
	server, worker := shared(t)
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	server.server.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	if err := worker.putFile(ctx, jetstream.ObjectMeta{Name: inFolder("a-0") + "/m.onnx"}, path); err == nil || ctx.Err() != nil {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}
