package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Listener is told of a job while its result is waited for. What is nil is not told.
type Listener struct {
	Worker   func(name string) // who has the job, or had it last; "" is nobody: it waits for a worker
	Progress func(line []byte) // what the worker says, in order; some may be missed
}

// Ask hands a job to the workers and waits for its result; the files are then in the job's folder. A job that was asked for before, by a
// server that was stopped or killed meanwhile, is not done twice.
//
// While the queue is out of reach Ask waits. When ctx is done the job stays in the queue, for whoever asks for it next; Withdraw takes
// it out.
func (q *Queue) Ask(ctx context.Context, j Job, tell Listener) (Run, error) {
	if tell.Worker == nil {
		tell.Worker = func(string) {}
	}
	if tell.Progress == nil {
		tell.Progress = func([]byte) {}
	}
	tell.Worker("")
	if err := q.wait(ctx); err != nil {
		return Run{}, err
	}
	j.Owner = q.owner
	q.asked.Store(j.Key, j)
	defer q.asked.Delete(j.Key)
	heard := &ear{begun: time.Now()}
	sub, err := q.conn.Subscribe(subjectProgress+"."+j.Key, func(m *nats.Msg) {
		if heard.now(); len(m.Data) > 0 {
			tell.Progress(m.Data)
		}
	})
	if err != nil {
		return Run{}, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	gone := 0
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		run, err := q.ask(ctx, j, tell, heard)
		if err == nil || ctx.Err() != nil || !mayPass(err) {
			return run, err
		}
		if errors.Is(err, errFilesGone) {
			if gone++; gone == maxGone {
				return Run{}, fmt.Errorf("%w: %w", ErrResult, err)
			}
		}
		q.config.Log.Warn("the queue does not take or give a job; it is tried again", "job", j.Key, "error", err)
		select {
		case <-ctx.Done():
			return Run{}, ctx.Err()
		case <-time.After(pause):
		}
		q.mend(ctx)
	}
}

// ear notes when a worker was heard last, whatever the clock says.
type ear struct {
	begun time.Time
	last  atomic.Int64 // since then
}

func (e *ear) now() { e.last.Store(int64(time.Since(e.begun))) }

func (e *ear) silence() time.Duration { return time.Since(e.begun) - time.Duration(e.last.Load()) }

func (q *Queue) ask(ctx context.Context, j Job, tell Listener, heard *ear) (Run, error) {
	if err := q.submit(ctx, j); err != nil {
		return Run{}, err
	}
	run, err := q.await(ctx, j, tell, heard)
	if err != nil {
		return Run{}, err
	}
	err = q.fetch(ctx, j, run)
	if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrDigestMismatch) {
		err = fmt.Errorf("%w: %w", errFilesGone, err)
	}
	if errors.Is(err, errFilesGone) {
		return Run{}, errors.Join(err, q.Withdraw(ctx, j.Key)) // and ask again
	}
	return run, err
}

var (
	// ErrResult says that a worker's result is none that can be used.
	ErrResult = errors.New("the result of a worker cannot be used")

	errFilesGone = errors.New("the result's files are gone; the run is done again")
)

// maxGone is how often a run is done again whose files are gone, before that is taken to be the worker's doing.
const maxGone = 5

// mayPass tells the queue's own trouble, which passes, from that of files and of jobs.
func mayPass(err error) bool {
	var file *fs.PathError
	return !errors.As(err, &file) && !errors.Is(err, ErrWithdrawn) && !errors.Is(err, ErrResult) && !errors.Is(err, ErrJob)
}

// submit puts the job into the queue, unless it is there.
func (q *Queue) submit(ctx context.Context, j Job) error {
	if err := q.publishable(j); err != nil {
		return err
	}
	_, err := q.runs.Get(ctx, j.Key)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	if err != nil {
		if err := q.putIn(ctx, j); err != nil {
			return err
		}
		if _, err := q.runs.Create(ctx, j.Key, Run{Server: j.Server, At: time.Now().UTC()}.encode()); err != nil {
			return err
		}
	}
	return q.publish(ctx, j)
}

// message is what workers are told of a job. Nobody else reads that of a private queue, and whoever asked for it knows the rest.
func (q *Queue) message(j Job) ([]byte, error) {
	if q.private {
		j.In = nil
	}
	return json.Marshal(j)
}

// publishable reports ErrJob when the queue has no room for a job's message.
func (q *Queue) publishable(j Job) error {
	text, err := q.message(j)
	if most := int(q.conn.MaxPayload()) - maxHeader; err == nil && len(text) > most {
		err = fmt.Errorf("%w: the names of its %d files take %d bytes, at most %d", ErrJob, len(j.In), len(text), most)
	}
	return err
}

const maxHeader = 1 << 10 // bytes that JetStream and this package put before a message

// ErrJob says that a job has too much in it for the queue.
var ErrJob = errors.New("the job is too large for the queue")

// publish has workers take the job, unless it waits or somebody works on it.
func (q *Queue) publish(ctx context.Context, j Job) error {
	text, err := q.message(j)
	if err != nil {
		return err
	}
	_, err = q.js.Publish(ctx, subjectJobs+"."+j.Label+"."+j.Key, text, jetstream.WithExpectLastSequencePerSubject(0))
	var refused *jetstream.APIError
	if errors.As(err, &refused) && (refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return nil
	}
	return err
}

// ErrWithdrawn says that somebody has taken the job out of the queue.
var ErrWithdrawn = errors.New("the job was withdrawn")

// await waits for the result under the job's key.
func (q *Queue) await(ctx context.Context, j Job, tell Listener, heard *ear) (Run, error) {
	watcher, err := q.runs.Watch(ctx, j.Key)
	if err != nil {
		return Run{}, err
	}
	defer func() { _ = watcher.Stop() }()
	// The watcher survives the loss of the connection; should it ever miss a change, the key is looked at again.
	again := time.NewTicker(q.config.Heartbeat)
	defer again.Stop()
	for {
		var entry jetstream.KeyValueEntry
		looked := false
		select {
		case <-ctx.Done():
			return Run{}, ctx.Err()
		case entry = <-watcher.Updates():
			if entry == nil { // what there was has been told
				continue
			}
			heard.now()
		case <-again.C:
			entry, err = q.runs.Get(ctx, j.Key)
			switch {
			case errors.Is(err, jetstream.ErrKeyNotFound):
				return Run{}, ErrWithdrawn
			case err != nil && q.conn.IsConnected():
				return Run{}, err // and submit again: the streams may be gone
			case err != nil:
				continue // the connection is made again
			}
			looked = true
		}
		if entry.Operation() != jetstream.KeyValuePut {
			return Run{}, ErrWithdrawn
		}
		var run Run
		if err := json.Unmarshal(entry.Value(), &run); err != nil {
			return Run{}, fmt.Errorf("run %s: %w", j.Key, err)
		}
		if run.Result != nil {
			tell.Worker(run.Worker)
			return run, nil
		}
		if run.Worker != "" && heard.silence() > q.config.Heartbeat {
			run.Worker = "" // it has died, perhaps; another takes the job
		}
		tell.Worker(run.Worker)
		if !looked {
			continue
		}
		if err := q.look(ctx, j); err != nil && q.conn.IsConnected() {
			return Run{}, err
		}
	}
}

// look sees to it that a job without a result can be taken: its message may be gone with a worker that was told to forget it, or with its stream, and so may its files.
func (q *Queue) look(ctx context.Context, j Job) error {
	if !q.private && len(j.In) > 0 {
		_, err := q.files.GetInfo(ctx, inObject(j, j.In[0]))
		if errors.Is(err, jetstream.ErrObjectNotFound) {
			err = q.putIn(ctx, j)
		}
		if err != nil {
			return err
		}
	}
	return q.publish(ctx, j)
}

// fetch brings what the worker wrote into the folder, unless it is there. The worker is not trusted: it gets no more room than its model may have.
func (q *Queue) fetch(ctx context.Context, j Job, run Run) error {
	r := run.Result
	switch {
	case r.Reason != "":
		return nil
	case r.Owner == q.owner:
		if _, err := os.Lstat(filepath.Join(j.Dir, reportFile)); err == nil {
			return nil
		}
		return errFilesGone // the folder was made anew: something failed after they had been there
	case r.Owner != "": // a process that is gone
		return errFilesGone
	}
	for i, name := range r.Out {
		if !slices.Contains(j.In, name) || slices.Contains(r.Out[:i], name) {
			return fmt.Errorf("%w: %.200q is no file of the package, or there twice", ErrResult, name)
		}
	}
	from := outFolder(j.Key, r.Files)
	if err := q.getFiles(ctx, from+"/out", filepath.Join(j.Dir, "out"), r.Out, cmp.Or(j.Most, math.MaxInt64)); err != nil {
		return err
	}
	return q.getFiles(ctx, from, j.Dir, []string{reportFile}, maxReport)
}

const (
	reportFile = "report.json"
	maxReport  = 1 << 20 // bytes
)

// Withdraw takes a job out of the queue with all that belongs to it: its result has been recorded, or nobody wants it any more. A
// worker that has it gives up.
func (q *Queue) Withdraw(ctx context.Context, key string) error {
	if err := q.there(); err != nil {
		return err
	}
	err := q.runs.Purge(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		err = nil
	}
	return errors.Join(err, q.jobs.Purge(ctx, jetstream.WithPurgeSubject(subjectJobs+".*."+key)), q.deleteFiles(ctx, key))
}

// Sweep withdraws the server's jobs that are not wanted any more, and removes what else is left of them: what a kill, or a queue out of
// reach, kept from being removed. What JetStream remembers of keys that are gone goes, too.
func (q *Queue) Sweep(ctx context.Context, server string, wanted func(key string) bool) error {
	if err := q.there(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := q.runs.PurgeDeletes(ctx); err != nil {
		return err
	}
	err := q.forEachRun(ctx, func(key string, run Run) error {
		if run.Server != server || wanted(key) {
			return nil
		}
		return q.Withdraw(ctx, key)
	})
	if err != nil || q.private {
		return err
	}
	return q.sweepFiles(ctx, server, wanted)
}

// KeepSwept sweeps at once and then again and again, until ctx is done.
func (q *Queue) KeepSwept(ctx context.Context, server string, wanted func(key string) bool) {
	if q.wait(ctx) != nil {
		return
	}
	for {
		if err := q.Sweep(ctx, server, wanted); err != nil && ctx.Err() == nil {
			q.config.Log.Warn("what is left of jobs cannot be removed from the queue now", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepBeats * q.config.Heartbeat):
		}
	}
}

// sweepBeats is how many heartbeats there are between two sweeps.
const sweepBeats = 10

func (q *Queue) forEachRun(ctx context.Context, f func(key string, run Run) error) error {
	keys, err := q.runs.ListKeys(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = keys.Stop() }()
	for key := range keys.Keys() {
		entry, err := q.runs.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		} else if err != nil {
			return err
		}
		var run Run
		if err := json.Unmarshal(entry.Value(), &run); err != nil { // nobody can do anything with it
			q.config.Log.Warn("what the queue has under a key is none of its records and is removed", "key", key, "error", err)
			if err := q.runs.Purge(ctx, key); err != nil {
				return err
			}
			continue
		}
		if err := f(key, run); err != nil {
			return err
		}
	}
	return nil
}
