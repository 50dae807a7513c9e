package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Ask hands a job to the workers and waits for its result; the files are then in the job's folder. A job that was asked for before, by a
// server that was stopped or killed meanwhile, is not done twice. progress receives what the worker says, in order, and may miss some.
//
// While the queue is out of reach Ask waits. When ctx is done the job stays in the queue, for whoever asks for it next; Withdraw takes
// it out.
func (q *Queue) Ask(ctx context.Context, j Job, progress func(line []byte)) (Run, error) {
	j.Owner = q.owner
	sub, err := q.conn.Subscribe(subjectProgress+"."+j.Key, func(m *nats.Msg) { progress(m.Data) })
	if err != nil {
		return Run{}, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		run, err := q.ask(ctx, j)
		if err == nil || ctx.Err() != nil || !mayPass(err) {
			return run, err
		}
		q.config.Log.Warn("the queue does not take or give a job; it is tried again", "job", j.Key, "error", err)
		select {
		case <-ctx.Done():
			return Run{}, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (q *Queue) ask(ctx context.Context, j Job) (Run, error) {
	if err := q.submit(ctx, j); err != nil {
		return Run{}, err
	}
	run, err := q.await(ctx, j.Key)
	if err != nil {
		return Run{}, err
	}
	if err = q.fetch(ctx, j.Key, j.Dir, run); errors.Is(err, errFilesGone) || errors.Is(err, jetstream.ErrObjectNotFound) {
		return Run{}, errors.Join(err, q.Withdraw(ctx, j.Key)) // and ask again
	}
	return run, err
}

var errFilesGone = errors.New("the result's files are gone with the process that had them; the run is done again")

// mayPass tells the queue's own trouble, which passes, from that of files and of jobs.
func mayPass(err error) bool {
	var file *fs.PathError
	return !errors.As(err, &file) && !errors.Is(err, ErrWithdrawn)
}

// submit puts the job into the queue, unless it is there.
func (q *Queue) submit(ctx context.Context, j Job) error {
	_, err := q.runs.Get(ctx, j.Key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		if err := q.putFiles(ctx, j.Key, j.Dir, "in", j.In); err != nil {
			return err
		}
		if _, err := q.runs.Create(ctx, j.Key, Run{Server: j.Server, At: time.Now().UTC()}.encode()); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	_, err = q.js.Publish(ctx, subjectJobs+"."+j.Label+"."+j.Key, text, jetstream.WithExpectLastSequencePerSubject(0))
	var refused *jetstream.APIError
	if errors.As(err, &refused) && (refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return nil // it waits, or somebody works on it
	}
	return err
}

// ErrWithdrawn says that somebody has taken the job out of the queue.
var ErrWithdrawn = errors.New("the job was withdrawn")

// await waits for the result under the key.
func (q *Queue) await(ctx context.Context, key string) (Run, error) {
	watcher, err := q.runs.Watch(ctx, key)
	if err != nil {
		return Run{}, err
	}
	defer func() { _ = watcher.Stop() }()
	// The watcher survives the loss of the connection; should it ever miss a change, the key is looked at again.
	again := time.NewTicker(q.config.Heartbeat)
	defer again.Stop()
	for {
		var entry jetstream.KeyValueEntry
		select {
		case <-ctx.Done():
			return Run{}, ctx.Err()
		case entry = <-watcher.Updates():
			if entry == nil { // what there was has been told
				continue
			}
		case <-again.C:
			if entry, err = q.runs.Get(ctx, key); errors.Is(err, jetstream.ErrKeyNotFound) {
				return Run{}, ErrWithdrawn
			} else if err != nil {
				continue // the connection is made again
			}
		}
		if entry.Operation() != jetstream.KeyValuePut {
			return Run{}, ErrWithdrawn
		}
		var run Run
		if err := json.Unmarshal(entry.Value(), &run); err != nil {
			return Run{}, fmt.Errorf("run %s: %w", key, err)
		}
		if run.Result != nil {
			return run, nil
		}
	}
}

// fetch brings what the worker wrote into the folder, unless it is there.
func (q *Queue) fetch(ctx context.Context, key, dir string, run Run) error {
	switch r := run.Result; {
	case r.Reason != "" || r.Owner == q.owner:
		return nil
	case r.Owner != "": // a process that is gone
		return errFilesGone
	}
	if err := q.getFiles(ctx, key, dir, "out", run.Result.Out); err != nil {
		return err
	}
	return q.getFiles(ctx, key, dir, ".", []string{"report.json"})
}

// Withdraw takes a job out of the queue with all that belongs to it: its result has been recorded, or nobody wants it any more. A
// worker that has it gives up.
func (q *Queue) Withdraw(ctx context.Context, key string) error {
	err := q.runs.Purge(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		err = nil
	}
	return errors.Join(err, q.jobs.Purge(ctx, jetstream.WithPurgeSubject(subjectJobs+".*."+key)), q.deleteFiles(ctx, key))
}

// Sweep withdraws the server's jobs that are not wanted any more: those that a kill kept from being withdrawn. What JetStream remembers of
// keys that are gone goes, too.
func (q *Queue) Sweep(ctx context.Context, server string, wanted func(key string) bool) error {
	if err := q.runs.PurgeDeletes(ctx); err != nil {
		return err
	}
	return q.forEachRun(ctx, func(key string, run Run) error {
		if run.Server != server || wanted(key) {
			return nil
		}
		return q.Withdraw(ctx, key)
	})
}

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
		if err := json.Unmarshal(entry.Value(), &run); err != nil {
			return fmt.Errorf("run %s: %w", key, err)
		}
		if err := f(key, run); err != nil {
			return err
		}
	}
	return nil
}

// transferLimit bounds the way of a package's files to or from the queue. Without a deadline the NATS client would take seconds.
const transferLimit = time.Hour

// putFiles stores dir/sub/NAME for the other side.
func (q *Queue) putFiles(ctx context.Context, key, dir, sub string, names []string) error {
	if q.private {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, sub, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		_, err = q.files.Put(ctx, jetstream.ObjectMeta{Name: object(key, sub, name)}, f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// getFiles brings what the other side stored to dir/sub/NAME. Their digests are checked.
func (q *Queue) getFiles(ctx context.Context, key, dir, sub string, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	top := filepath.Join(dir, sub)
	if err := os.MkdirAll(top, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(top) // names come from the other side
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range names {
		if err := q.getFile(ctx, object(key, sub, name), root, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (q *Queue) getFile(ctx context.Context, object string, root *os.Root, name string) error {
	from, err := q.files.Get(ctx, object)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o700); err != nil {
		return err
	}
	to, err := root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = to.ReadFrom(from)
	return errors.Join(err, to.Close())
}

func object(key, sub, name string) string { return key + "/" + sub + "/" + name }

func (q *Queue) deleteFiles(ctx context.Context, key string) error {
	if q.private {
		return nil
	}
	list, err := q.files.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil
	} else if err != nil {
		return err
	}
	for _, o := range list {
		if len(o.Name) > len(key) && o.Name[:len(key)+1] == key+"/" {
			if derr := q.files.Delete(ctx, o.Name); derr != nil && !errors.Is(derr, jetstream.ErrObjectNotFound) {
				err = errors.Join(err, derr)
			}
		}
	}
	return err
}
