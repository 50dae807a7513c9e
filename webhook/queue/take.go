package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Taker takes jobs for one worker.
type Taker struct {
	Most time.Duration // that a job may take: then its heartbeats end, whatever holds the worker up, and another takes it; 0 is no limit

	q         *Queue
	worker    string // its name
	labels    []string
	consumers []jetstream.Consumer
}

// ErrLabel says that there can be no jobs of a label.
var ErrLabel = errors.New("label")

// Taker returns one for a worker with these labels, in the order of its preference.
func (q *Queue) Taker(ctx context.Context, worker string, labels []string) (*Taker, error) {
	t := &Taker{q: q, worker: worker, labels: labels}
	for _, l := range labels {
		if !ValidLabel(l) {
			return nil, fmt.Errorf("%w %q: lower-case letters, digits and '-' are known", ErrLabel, l)
		}
	}
	if err := q.wait(ctx); err != nil {
		return nil, err
	}
	err := t.join(ctx)
	if err != nil && ctx.Err() == nil {
		q.mend(ctx)
		err = t.join(ctx)
	}
	return t, err
}

// join makes the consumers of the labels, if nobody has.
func (t *Taker) join(ctx context.Context) error {
	var all []jetstream.Consumer
	for _, l := range t.labels {
		c, err := t.q.jobs.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable: "workers-" + l, FilterSubject: subjectJobs + "." + l + ".*", AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: t.q.config.Heartbeat, MaxDeliver: -1, MaxAckPending: -1,
		})
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	t.consumers = all
	return nil
}

// Delivery is a job that a worker has. It must end with Finish, Again, Return or Abandon.
type Delivery struct {
	Job      Job
	Attempts int  // runs begun before this one that did not come to an end
	Shared   bool // the job's folder is this process's own, with the files in it

	t        *Taker
	msg      jetstream.Msg
	revision uint64
	stored   bool // the result's files are in the queue
	stop     context.CancelFunc
}

// Take waits for a job. Its context is done when the job is withdrawn, or another worker began it because the queue heard nothing of
// this one for too long; heartbeats are sent until the delivery's end.
func (t *Taker) Take(ctx context.Context) (*Delivery, context.Context, error) {
	for {
		msg, err := t.next(ctx)
		if err != nil {
			return nil, nil, err
		}
		if msg == nil {
			continue
		}
		d, run, err := t.begin(ctx, msg)
		if err != nil {
			t.q.config.Log.Warn("a job cannot be begun", "subject", msg.Subject(), "error", err)
			_ = msg.NakWithDelay(time.Second)
			continue
		}
		if d != nil {
			return d, run, nil
		}
	}
}

// next returns a message of the first label that has one, or nil after a while.
func (t *Taker) next(ctx context.Context) (jetstream.Msg, error) {
	wait := 2 * time.Second
	if len(t.consumers) > 1 { // no label makes another wait
		wait = 250 * time.Millisecond
	}
	for _, c := range t.consumers {
		batch, err := c.Fetch(1, jetstream.FetchMaxWait(wait))
		if err == nil {
			for msg := range batch.Messages() {
				return msg, ctx.Err()
			}
			err = batch.Error()
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && !errors.Is(err, jetstream.ErrNoMessages) { // out of reach, or gone
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second):
			}
			if t.q.conn.IsConnected() {
				return nil, t.rejoin(ctx)
			}
		}
	}
	return nil, nil
}

// rejoin makes again what the worker takes jobs from. What cannot be made now is made later: an error is that ctx is done.
func (t *Taker) rejoin(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, laterTry)
	defer cancel()
	t.q.mend(limited)
	if err := t.join(limited); err != nil && ctx.Err() == nil {
		t.q.config.Log.Warn("the queue gives no jobs; it is asked again", "error", err)
	}
	return ctx.Err()
}

// begin counts the attempt and starts the heartbeats. A job whose key is gone, or that has a result, is acknowledged and nil.
func (t *Taker) begin(ctx context.Context, msg jetstream.Msg) (*Delivery, context.Context, error) {
	d := &Delivery{t: t, msg: msg}
	if err := json.Unmarshal(msg.Data(), &d.Job); err != nil || !strings.HasSuffix(msg.Subject(), "."+d.Job.Key) || !validKey.MatchString(d.Job.Key) {
		t.q.config.Log.Error("a message in the queue is no job", "subject", msg.Subject(), "error", err)
		return nil, nil, msg.Term()
	}
	entry, err := t.q.runs.Get(ctx, d.Job.Key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil, msg.Ack()
	} else if err != nil {
		return nil, nil, err
	}
	var run Run
	if err := json.Unmarshal(entry.Value(), &run); err != nil {
		return nil, nil, err
	}
	if run.Result != nil {
		return nil, nil, msg.Ack()
	}
	// Who can write to the queue can write anything. What this process does in its own folders it knows from itself.
	own, shared := t.q.asked.Load(d.Job.Key)
	if shared = shared && d.Job.Owner == t.q.owner; shared {
		d.Job = own.(Job)
	} else if t.q.private {
		return nil, nil, errors.New("nobody asks for it")
	}
	d.Attempts, d.Shared = run.Attempts, shared
	run.Attempts++
	run.Worker, run.At = t.worker, time.Now().UTC()
	if d.revision, err = t.q.runs.Update(ctx, d.Job.Key, run.encode(), entry.Revision()); err != nil {
		return nil, nil, err // somebody else has it
	}
	watched, stop := context.WithTimeout(ctx, cmp.Or(t.Most, math.MaxInt64))
	d.stop = stop
	go d.beat(watched, stop)
	return d, watched, nil
}

// beat sends heartbeats, and ends the run when the job is not this worker's any more.
func (d *Delivery) beat(ctx context.Context, lost context.CancelFunc) {
	defer lost()
	watcher, err := d.t.q.runs.Watch(ctx, d.Job.Key)
	if err != nil {
		d.t.q.config.Log.Warn("a job cannot be watched", "job", d.Job.Key, "error", err)
		return
	}
	defer func() { _ = watcher.Stop() }()
	tick := time.NewTicker(d.t.q.config.Heartbeat / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-watcher.Updates():
			if e != nil && e.Revision() > d.revision { // withdrawn, or begun by another
				return
			}
		case <-tick.C:
			_ = d.msg.InProgress() // while the queue is out of reach the run goes on: if another worker begins it, the watcher tells
			d.Progress(nil)        // the server that asked hears that somebody works
		}
	}
}

// Progress tells the server that asked what the sanitizer says. What cannot be told is lost.
func (d *Delivery) Progress(line []byte) { _ = d.t.q.conn.Publish(subjectProgress+"."+d.Job.Key, line) }

// FetchInput brings the package's files to dir/in.
func (d *Delivery) FetchInput(ctx context.Context, dir string) error {
	return d.t.q.getFiles(ctx, inFolder(d.Job.Key), filepath.Join(dir, "in"), d.Job.In, math.MaxInt64)
}

// Finish records the result, with the files that are under dir for the server that asked, and acknowledges the job. ErrLost says that
// another worker has the job by now, or nobody wants it. After any other error the job is still this worker's, and Finish can be called again.
func (d *Delivery) Finish(ctx context.Context, dir string, r Result) error {
	if d.Shared {
		r.Owner = d.t.q.owner
	}
	if r.Reason == "" && !d.Shared {
		r.Files = d.files()
		if err := d.store(ctx, dir, r.Out); err != nil {
			return err
		}
	}
	r.Worker = d.t.worker
	run := Run{Server: d.Job.Server, Attempts: d.Attempts + 1, Worker: d.t.worker, At: time.Now().UTC(), Result: &r}
	if _, err := d.t.q.runs.Update(ctx, d.Job.Key, run.encode(), d.revision); err != nil {
		if errors.Is(err, jetstream.ErrKeyRevisionMismatch) { // any other refusal is the queue's trouble: it is full, for example
			d.stop()
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		return err
	}
	d.stop()
	return d.msg.Ack()
}

// files tells this run's place in the queue from those of others of the job.
func (d *Delivery) files() string { return fmt.Sprintf("-%d", d.revision) }

// store puts the result's files into the queue, once: while a result is recorded again whose first answer was lost, the server may read them.
func (d *Delivery) store(ctx context.Context, dir string, out []string) error {
	if d.stored {
		return nil
	}
	to := outFolder(d.Job.Key, d.files())
	err := errors.Join(d.t.q.putFiles(ctx, d.Job, to+"/out", filepath.Join(dir, "out"), out), d.t.q.putFiles(ctx, d.Job, to, dir, []string{reportFile}))
	d.stored = err == nil
	return err
}

// ErrLost says that a job is not the worker's any more.
var ErrLost = errors.New("the job is not this worker's any more")

// Again gives the job to a worker again after a pause; this run counts.
func (d *Delivery) Again(after time.Duration) error {
	defer d.stop()
	return d.msg.NakWithDelay(after)
}

// Abandon lets go of a job that is not the worker's any more.
func (d *Delivery) Abandon() { d.stop() }

// Return gives the job back, because the worker stops: this run does not count, and another worker takes it at once.
func (d *Delivery) Return(ctx context.Context) error {
	defer d.stop()
	run := Run{Server: d.Job.Server, Attempts: d.Attempts, At: time.Now().UTC()}
	if _, err := d.t.q.runs.Update(ctx, d.Job.Key, run.encode(), d.revision); err != nil {
		return err
	}
	return d.msg.Nak()
}
