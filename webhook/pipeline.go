package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"grindstone/attest"
	"grindstone/policy"
	"grindstone/registry"
	"grindstone/sanitize"
	"grindstone/webhook/queue"
)

// PipelineConfig is what the pipeline joins. Every field without a default is needed.
type PipelineConfig struct {
	Dir       string // state/ and work/ are made under it
	Policy    *policy.Engine
	Key       *attest.Key
	Datasets  map[string]string // paths of the clean datasets by name
	Defaults  policy.Parameters // for parameters that a decision leaves at zero
	Host      string            // host of the registry in the attestation's source URI
	Sanitizer SanitizerConfig
	Version   attest.Version // of this program, for the attestation
	Log       *slog.Logger

	Targets      []Target        // who is told about admissions that have come to an end
	NotifyPauses []time.Duration // between the attempts of a notification; default: growing, half a day altogether

	Events []EventSource // registries that tell of pushes
	Ingest IngestConfig

	Queue  *queue.Queue // carries the runs of the sanitizer to workers; needed by Start
	Labels []string     // of the jobs that this process's workers take; default: queue.LabelAny
}

// Pipeline takes pushed models from quarantine to release. It is the registry's Admitter.
type Pipeline struct {
	PipelineConfig
	store    *Store
	broken   bool // some records could not be read
	began    time.Time
	serverID string // in the queue: the same at every start
	backlog  *backlog
	feeds    *feeds
	runLogs  *runLogs
	notifier *notifier
	ingester *ingester
	metrics  *metrics
	registry *registry.Gateway

	tags    sync.Mutex // held while a push of a tag, an operator's decision, or the end of a release is recorded, and while garbage is removed
	moving  sync.Mutex // held while tags are moved, which may take long; taken before tags
	workers sync.WaitGroup
	running sync.Map // admission id -> context.CancelFunc of the worker that has it

	// passing is called at every point where the server may die: before and after a state is recorded, and inside the
	// attesting step. Tests stop the server there.
	passing func(point string)
}

// NewPipeline makes a pipeline that does nothing before Start: the registry needs it first, as its Admitter, and locks the folder.
func NewPipeline(c PipelineConfig) (*Pipeline, error) {
	p := &Pipeline{PipelineConfig: c, backlog: newBacklog(), feeds: newFeeds(), passing: func(string) {}}
	p.metrics = newMetrics(p)
	return p, nil
}

// Start reads the admissions under Dir, takes up those that are not through, and begins to work on them and on what is pushed. It
// ends, with its sanitizer processes, when ctx is cancelled; Wait waits for that. What was interrupted goes on at the next start.
func (p *Pipeline) Start(ctx context.Context, gateway *registry.Gateway) error {
	if p.Queue.Private() {
		p.Sanitizer.Workers, p.Labels = max(1, p.Sanitizer.Workers), nil
	}
	store, broken, err := OpenStore(filepath.Join(p.Dir, "state", "admissions"))
	if err != nil {
		return err
	}
	for _, err := range broken {
		p.Log.Error("an admission record cannot be read; its model stays in quarantine until it is pushed again", "error", err)
	}
	p.store, p.registry, p.broken, p.began = store, gateway, len(broken) > 0, time.Now()
	if p.runLogs, err = newRunLogs(filepath.Join(p.Dir, "state", runLogFolder)); err != nil {
		return err
	}
	if p.serverID, err = persistentID(filepath.Join(p.Dir, "state", "server-id")); err != nil {
		return err
	}
	if err := p.startNotifier(ctx); err != nil {
		return err
	}
	if err := p.resume(); err != nil {
		return err
	}
	p.startWorker(ctx)
	if p.ingester, err = newIngester(p); err != nil {
		return err
	}
	p.workers.Go(func() { p.ingester.work(ctx) })
	p.backlog.limit(p.Sanitizer.Each, p.pushedBy)
	for range p.lanes() {
		p.workers.Go(func() {
			for {
				id, ok := p.backlog.take(ctx)
				if !ok {
					return
				}
				p.process(ctx, id)
				p.backlog.done(id)
			}
		})
	}
	context.AfterFunc(ctx, p.feeds.end)
	return nil
}

// lanes is how many admissions are on their way at the same time. Where this process alone does the work, more would only wait, with their
// files on the disk.
func (p *Pipeline) lanes() int {
	if p.Queue.Private() {
		return p.Sanitizer.Workers
	}
	return max(sharedLanes, p.Sanitizer.Workers)
}

const sharedLanes = 64

// startWorker takes out of the queue what is left there and not wanted any more, now and later, and begins to work on what is.
func (p *Pipeline) startWorker(ctx context.Context) {
	wanted := func(key string) bool {
		id := key[:max(0, strings.LastIndex(key, "-"))]
		a, ok := p.store.Get(id)
		return ok && !a.State.Final() && a.jobKey() == key
	}
	p.workers.Go(func() { p.Queue.KeepSwept(ctx, p.serverID, wanted) })
	if p.Sanitizer.Workers == 0 {
		return
	}
	w := NewWorker(p.Queue, p.Dir, p.Datasets, p.Labels, p.Sanitizer, p.Log)
	p.metrics.registry.MustRegister(w.metrics.collectors()...)
	p.workers.Go(func() {
		if err := w.Run(ctx); err != nil {
			p.Log.Error("this server's worker cannot work", "error", err)
		}
	})
}

// Wait returns when no worker runs any more.
func (p *Pipeline) Wait() { p.workers.Wait() }

// resume queues what a former server left unfinished. Models held for the server's configuration get another try.
func (p *Pipeline) resume() error {
	digest := p.Policy.Digest()
	unfinished := p.store.List(func(a *Admission) bool {
		return !a.State.Final() ||
			a.State == Held && (configurable[a.Reason] || a.Reason == ReasonPolicyHeld && a.PolicyDigest != digest)
	})
	for _, a := range unfinished {
		if a.State == Quarantined && a.PolicyDigest == digest { // nothing has begun: there is nothing to write down, of thousands perhaps
			p.backlog.add(a.ID)
			continue
		}
		if _, err := p.store.Update(a.ID, func(a *Admission) { a.takenUp(digest, time.Now().UTC()) }); err != nil {
			return err
		}
		p.backlog.add(a.ID)
	}
	if err := p.claimTags(); err != nil {
		return err
	}
	p.sweep()
	return nil
}

// sweep removes scratch folders that belong to no unfinished admission.
func (p *Pipeline) sweep() {
	entries, _ := os.ReadDir(filepath.Join(p.Dir, "work")) // absent at the first start
	for _, e := range entries {
		if a, ok := p.store.Get(e.Name()); !ok || a.State.Final() {
			os.RemoveAll(p.scratch(e.Name()))
		}
	}
}

func (p *Pipeline) scratch(id string) string { return filepath.Join(p.Dir, "work", id) }

// step does the work of a state on a copy of the record and names the state that follows. An error is a verdict, an
// interruption when ctx is done, or internal.
type step func(*Pipeline, context.Context, *Admission) (State, error)

var steps = map[State]step{
	Quarantined: (*Pipeline).receive,
	Deciding:    (*Pipeline).decide,
	Sanitizing:  (*Pipeline).sanitize,
	Evaluating:  (*Pipeline).evaluate,
	Attesting:   (*Pipeline).attest,
	Releasing:   (*Pipeline).release,
}

// receive begins the work on an admission.
func (p *Pipeline) receive(context.Context, *Admission) (State, error) { return Deciding, nil }

// retries are the pauses before a step that failed for an internal reason is tried again.
var retries = []time.Duration{time.Second, 5 * time.Second}

// interrupt ends the work on an admission whose record says that there is none to do any more.
func (p *Pipeline) interrupt(id string) {
	if cancel, ok := p.running.Load(id); ok {
		cancel.(context.CancelFunc)()
	}
}

// process takes the admission from state to state until a final one or until ctx is done.
func (p *Pipeline) process(ctx context.Context, id string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.running.Store(id, cancel)
	defer p.running.Delete(id)
	failures := 0
	for ctx.Err() == nil {
		final, err := p.advance(ctx, id, failures >= len(retries))
		if final {
			break
		}
		if err == nil {
			failures = 0
			continue
		}
		p.Log.Error("a step failed and is tried again", "admission", id, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retries[min(failures, len(retries)-1)]):
		}
		failures++
	}
	if a, ok := p.store.Get(id); ok && a.State.Final() {
		os.RemoveAll(p.scratch(id))
	}
}

// advance does one step and records the state that follows. An error is internal; when last it becomes the verdict.
func (p *Pipeline) advance(ctx context.Context, id string, last bool) (final bool, err error) {
	a, ok := p.store.Get(id)
	if !ok || a.State.Final() {
		return true, nil
	}
	if a.State == Releasing { // one after the other: what is moved later is of the newer push
		p.moving.Lock()
		defer p.moving.Unlock()
		a, _ = p.store.Get(id)
	}
	work, err := a.clone()
	if err != nil {
		return false, err
	}
	from := a.State
	next, err := p.step(ctx, from, work)
	p.passing(string(from) + " done")
	locked := from == Releasing || err != nil
	if locked { // no tag may be pushed, or given away, between the last look at the tags and recording the end
		p.tags.Lock()
		defer p.tags.Unlock()
	}
	if from == Releasing && err == nil && p.hasTagToMove(work) {
		return false, nil
	}
	reason, message := Reason(""), ""
	var v *verdict
	switch {
	case err != nil && ctx.Err() != nil:
		return true, nil // interrupted: the state stays
	case errors.As(err, &v):
		next, reason, message = v.State, v.Reason, v.Message
	case err != nil && !last:
		return false, err
	case err != nil:
		p.Log.Error("a step failed for good", "admission", id, "state", from, "error", err)
		next, reason, message = Held, ReasonInternal, fmt.Sprintf("the server could not finish %q; its log has the cause", from)
	}
	a, err = p.commit(work, from, next, reason, message)
	for pause := time.Second; err != nil && !errors.Is(err, errOvertaken) && !locked; pause = min(2*pause, 30*time.Second) {
		// To do the step again would not help, and a run of the sanitizer is worth hours.
		p.Log.Error("what a step found cannot be recorded; it is tried again", "admission", id, "state", from, "error", err)
		select {
		case <-ctx.Done():
			return true, nil
		case <-time.After(pause):
		}
		a, err = p.commit(work, from, next, reason, message)
	}
	if errors.Is(err, errOvertaken) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	p.passing(string(next) + " recorded")
	if next == Held || next == Denied {
		p.yield(a)
	}
	return next.Final(), nil
}

// step does the work of a state. A panic is an error: a package, or a record that was damaged, must not take down the server, and again at each start.
func (p *Pipeline) step(ctx context.Context, from State, work *Admission) (next State, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return steps[from](p, ctx, work)
}

// commit records what a step found and the state that follows, unless an operator has decided meanwhile.
func (p *Pipeline) commit(work *Admission, from, next State, reason Reason, message string) (*Admission, error) {
	a, err := p.store.Change(work.ID, func(a *Admission) error {
		if a.State != from {
			return errOvertaken
		}
		a.PolicyDigest, a.Attempts = work.PolicyDigest, work.Attempts
		a.Decision, a.Report, a.Changed, a.Verdict, a.Released = work.Decision, work.Report, work.Changed, work.Verdict, work.Released
		a.Further, a.Twin = work.Further, work.Twin
		if from == Releasing {
			a.moved(work.Tags)
		}
		if from == Sanitizing {
			a.Runs++
		}
		a.enter(next, reason, message, time.Now().UTC())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if from == Sanitizing {
		p.withdraw(work.jobKey())
	}
	p.announce(a)
	return a, nil
}

// errOvertaken says that an admission is no longer in the state whose work was done.
var errOvertaken = errors.New("the admission is in another state by now")

// announce tells the log, the metrics and the followers of an admission that its state changed.
func (p *Pipeline) announce(a *Admission) {
	p.feeds.changed(a.ID)
	p.metrics.entered(a)
	p.Log.Info("admission", "admission", a.ID, "repository", a.Source.Repository, "digest", a.Source.Digest, "state", a.State,
		"reason", a.Reason, "message", a.Message)
	p.notify(a)
}

// startNotifier makes up for the notifications that a former server could not make, and delivers those that are due. It comes before
// anything changes the state of an admission.
func (p *Pipeline) startNotifier(ctx context.Context) (err error) {
	p.store.outbox = len(p.Targets) > 0
	pauses := p.NotifyPauses
	if pauses == nil {
		pauses = notifyPauses
	}
	if p.notifier, err = newNotifier(filepath.Join(p.Dir, "state", "notifications"), p.Host, p.Targets, pauses, p.metrics, p.Log); err != nil {
		return err
	}
	for _, a := range p.store.List(func(a *Admission) bool { return a.Unsent }) {
		p.notify(a)
	}
	p.notifier.start(ctx, &p.workers)
	return nil
}

// notify makes the notifications of the final state that the admission has entered, if it has. Where that fails, the next start does it.
func (p *Pipeline) notify(a *Admission) {
	if !a.Unsent {
		return
	}
	p.passing("final state recorded")
	err := p.notifier.tell(a)
	if err == nil {
		_, err = p.store.Update(a.ID, func(now *Admission) { now.Unsent = now.Unsent && now.changes() != a.changes() })
	}
	if err != nil {
		p.Log.Error("notifications cannot be made; the next start tries again", "admission", a.ID, "error", err)
	}
}

// datasetNames lists the configured clean datasets for the policy.
func (p *Pipeline) datasetNames() []string { return slices.Sorted(maps.Keys(p.Datasets)) }

func (p *Pipeline) progress(a *Admission, line sanitize.Progress) {
	p.feeds.progress(a.ID, a.changes(), line)
	if err := p.runLogs.add(a.ID, line); err != nil {
		p.Log.Warn("what the sanitizer said cannot be kept", "admission", a.ID, "error", err)
	}
	if line.Phase == "failed" || line.Message != "" {
		p.Log.Debug("sanitizer", "admission", a.ID, "phase", line.Phase, "message", line.Message, "error", line.Error)
	}
}
