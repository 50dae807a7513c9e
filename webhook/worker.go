package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"grindstone/internal/regular"
	"grindstone/sanitize"
	"grindstone/webhook/queue"
)

// Worker takes jobs from the queue and runs a sanitizer process for each.
type Worker struct {
	Queue     *queue.Queue
	Name      string   // in logs and records
	Labels    []string // of the jobs that it takes, the preferred first
	Dir       string   // scratch folders are made under work/ in it
	Datasets  map[string]string
	Sanitizer SanitizerConfig
	Log       *slog.Logger
	Needs     []Check // jobs are taken when they hold: what the machine lacks would be the verdict on every model

	metrics *workerMetrics
}

// NewWorker makes a worker. Without labels it takes the jobs that every worker may do.
func NewWorker(q *queue.Queue, dir string, datasets map[string]string, labels []string, c SanitizerConfig, log *slog.Logger) *Worker {
	if len(labels) == 0 {
		labels = []string{queue.LabelAny}
	}
	return &Worker{Queue: q, Name: workerName(), Labels: labels, Dir: dir, Datasets: datasets, Sanitizer: c.withDefaults(), Log: log, metrics: newWorkerMetrics()}
}

// maxAttempts is how often a job may be begun without coming to an end, before that is taken to be the model's doing.
const maxAttempts = 5

// againAfter is the pause before a job that this machine could not do is given to a worker again: at first, and twice as long each time that it was begun. As long this
// machine takes none, up to mostRest, and leaves them to others.
const (
	againAfter = 5 * time.Second
	mostRest   = 2 * time.Minute
)

// transfers is the time that a job has besides its sanitizer's, for what goes to and from the queue.
const transfers = 2 * time.Hour

// Run works until ctx is done, on as many jobs at a time as the sanitizer's configuration says. What is interrupted goes back to the
// queue.
func (w *Worker) Run(ctx context.Context) error {
	if !w.complete(ctx) {
		return nil
	}
	var group sync.WaitGroup
	defer group.Wait()
	for range max(1, w.Sanitizer.Workers) {
		taker, err := w.taker(ctx)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		taker.Most = w.Sanitizer.Timeout + transfers
		group.Go(func() { w.work(ctx, taker) })
	}
	<-ctx.Done()
	return nil
}

// complete waits until the worker has what it needs. It is false when ctx is done before.
func (w *Worker) complete(ctx context.Context) bool {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		var missing []any
		for _, c := range examine(ctx, w.Needs) {
			if !c.Ready {
				missing = append(missing, c.Name, c.Reason)
			}
		}
		if len(missing) == 0 {
			return true
		}
		w.Log.Warn("the worker takes no jobs while something is missing; it looks again", missing...)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return false
}

// work does one job after the other.
func (w *Worker) work(ctx context.Context, taker *queue.Taker) {
	for rest := againAfter; ctx.Err() == nil; {
		d, run, err := taker.Take(ctx)
		if err != nil {
			return
		}
		if w.do(ctx, run, d) {
			rest = againAfter
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(rest):
		}
		rest = min(2*rest, mostRest)
	}
}

// taker waits for the queue to let the worker take jobs. An error is about the labels, or ctx is done.
func (w *Worker) taker(ctx context.Context) (*queue.Taker, error) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		taker, err := w.Queue.Taker(ctx, w.Name, w.Labels)
		if err == nil || errors.Is(err, queue.ErrLabel) || ctx.Err() != nil {
			return taker, err
		}
		w.Log.Warn("the queue gives no jobs; it is asked again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// do works on one job, and reports whether this machine could. run is done when the job is not this worker's any more.
func (w *Worker) do(ctx, run context.Context, d *queue.Delivery) (could bool) {
	log := w.Log.With("job", d.Job.Key, "worker", w.Name)
	dir := d.Job.Dir
	if !d.Shared {
		dir = filepath.Join(w.Dir, "work", fmt.Sprintf("%s.%d", d.Job.Key, d.Attempts)) // one that was lost, and has come back, may still be ending
		defer os.RemoveAll(dir)
	}
	w.metrics.working.Inc()
	defer w.metrics.working.Dec()
	begin := time.Now()
	result, err := queue.Result{}, error(nil)
	if d.Attempts >= maxAttempts {
		result.Reason, result.Message = string(ReasonAttempts), fmt.Sprintf("%d runs of the sanitizer were begun and did not come to an end: its worker was killed, or could not work", d.Attempts)
	} else {
		result, err = w.sanitize(run, d, dir)
	}
	result.Seconds = time.Since(begin).Seconds()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	outcome := resultFailed
	defer func() { w.metrics.jobs.WithLabelValues(outcome).Inc() }()
	switch {
	case ctx.Err() != nil && err != nil:
		outcome = resultReturned
		err = d.Return(ending)
	case run.Err() != nil && err != nil:
		outcome = resultLost
		log.Info("the job was withdrawn, or is another worker's")
		d.Abandon()
		return true
	case err != nil:
		log.Error("a job could not be done and is given back", "error", err)
		if err = d.Again(againAfter << max(0, d.Attempts)); err != nil {
			log.Warn("the queue was not told that a job is given back; it finds out", "error", err)
		}
		return false
	default:
		switch err = w.finish(ctx, d, dir, result); {
		case err == nil:
			outcome = cmp.Or(result.Reason, resultOK)
			w.metrics.seconds.WithLabelValues(outcome).Observe(result.Seconds)
			log.Info("job done", "reason", result.Reason, "seconds", result.Seconds)
		case errors.Is(err, queue.ErrLost):
			outcome = resultLost
		}
	}
	if err != nil && !errors.Is(err, queue.ErrLost) {
		log.Warn("the queue was not told how a job ended; it is given to a worker again", "error", err)
	}
	return true
}

const (
	finishing = time.Hour        // for which a result is tried to be recorded
	lastTry   = 90 * time.Second // once the worker is to stop
)

// finish records the result. While the queue is out of reach it is tried again: a run is worth hours.
func (w *Worker) finish(working context.Context, d *queue.Delivery, dir string, r queue.Result) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(working), finishing)
	defer cancel()
	defer d.Abandon()
	defer context.AfterFunc(working, func() { time.AfterFunc(lastTry, cancel) })()
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		err := d.Finish(ctx, dir, r)
		var file *fs.PathError
		if err == nil || errors.Is(err, queue.ErrLost) || errors.As(err, &file) {
			return err
		}
		w.Log.Warn("a result cannot be recorded; it is tried again", "job", d.Job.Key, "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// sanitize runs the sanitizer on the job's package. A verdict about the model is a result; an error is this machine's.
func (w *Worker) sanitize(ctx context.Context, d *queue.Delivery, dir string) (queue.Result, error) {
	j := d.Job
	if !filepath.IsLocal(filepath.FromSlash(j.Model)) {
		return queue.Result{}, fmt.Errorf("job %s: %q is no name of a file in a package", j.Key, printable(j.Model, 100))
	}
	if err := checkArgs(j.Args); err != nil {
		return queue.Result{}, fmt.Errorf("job %s: %w", j.Key, err)
	}
	run := sanitizerRun{
		Model: filepath.Join(dir, "in", filepath.FromSlash(j.Model)), Out: filepath.Join(dir, "out", filepath.FromSlash(j.Model)),
		Report: filepath.Join(dir, "report.json"), Dir: filepath.Join(dir, "tmp"), Data: w.Datasets[j.Dataset], Args: w.args(j),
	}
	if run.Data == "" {
		return queue.Result{Reason: string(ReasonNoDataset), Message: fmt.Sprintf("the worker %s has no clean dataset %q: set datasets.%s in its configuration", w.Name, j.Dataset, j.Dataset)}, nil
	}
	for _, made := range []string{run.Dir, filepath.Dir(run.Out)} {
		if err := errors.Join(os.RemoveAll(made), os.MkdirAll(made, 0o700)); err != nil {
			return queue.Result{}, err
		}
	}
	if !d.Shared {
		if err := d.FetchInput(ctx, dir); err != nil {
			return queue.Result{}, err
		}
	}
	err := w.Sanitizer.run(ctx, run, func(p sanitize.Progress) {
		if line, err := json.Marshal(p); err == nil {
			d.Progress(line)
		}
	})
	if v := (*verdict)(nil); errors.As(err, &v) {
		return queue.Result{Reason: string(v.Reason), Message: v.Message}, nil
	} else if err != nil {
		return queue.Result{}, err
	}
	unusable := func(format string, args ...any) (queue.Result, error) {
		return queue.Result{Reason: string(ReasonInvalidOutput), Message: "the sanitizer's output is not usable: " + fmt.Sprintf(format, args...)}, nil
	}
	out, err := filesUnder(filepath.Join(dir, "out"))
	if err != nil {
		return queue.Result{}, err
	}
	if i := slices.IndexFunc(out, func(name string) bool { return !slices.Contains(j.In, name) }); i >= 0 {
		return unusable("%q is no file of the package", printable(out[i], 200))
	}
	if _, err := regular.Read(run.Report, maxReport); err != nil {
		return unusable("it wrote no report, or one that is no file of at most %d bytes", maxReport)
	}
	return queue.Result{Out: out}, nil
}

// checkArgs refuses flags that no server gives to a job (Pipeline.sanitizerArgs). Whoever can write to the queue could have the sanitizer read and write files of
// this machine by them, and leave its sandbox.
func checkArgs(args []string) error {
	for i := 0; i < len(args); i += 2 {
		if name, ok := strings.CutPrefix(args[i], "--"); !ok || !slices.Contains(jobFlags, name) {
			return fmt.Errorf("%q is no flag that a job may have", printable(args[i], 100))
		}
	}
	if len(args)%2 != 0 {
		return fmt.Errorf("the flag %s has no value", args[len(args)-1])
	}
	return nil
}

// args completes the job's flags with what each worker has of its own.
func (w *Worker) args(j queue.Job) []string {
	args := append([]string{}, j.Args...)
	if provider := firstOf(j.Provider, w.Sanitizer.Provider); provider != "" {
		args = append(args, "--provider", provider)
	}
	if w.Sanitizer.Sandbox != "" {
		args = append(args, "--sandbox", w.Sanitizer.Sandbox)
	}
	if w.Sanitizer.Threads != 0 {
		args = append(args, "--threads", strconv.Itoa(w.Sanitizer.Threads))
	}
	limits := w.Sanitizer.Model
	for _, l := range []struct {
		flag  string
		value int64
	}{{"--max-bytes", limits.Bytes}, {"--max-nodes", int64(limits.Nodes)}, {"--max-tensors", int64(limits.Tensors)}, {"--memory-limit", w.Sanitizer.Memory}} {
		if l.value > 0 {
			args = append(args, l.flag, strconv.FormatInt(l.value, 10))
		}
	}
	return args
}

// workerName tells workers apart: host and process.
func workerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

// filesUnder lists the names of the files in a folder, with forward slashes.
func filesUnder(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	return names, err
}
