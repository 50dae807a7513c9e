package webhook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"grindstone/sanitize"
	"grindstone/webhook/queue"
)

// sanitize writes the next model of the quarantined package into a fresh scratch folder, has a worker run the sanitizer on it, and checks what it wrote. When
// the server stops, the job stays in the queue, and the server's next start goes on waiting for it.
func (p *Pipeline) sanitize(ctx context.Context, a *Admission) (State, error) {
	if err := p.reconsider(ctx, a); err != nil {
		return "", err
	}
	if a.through() > 0 && !p.outputThere(a) {
		a.forget()
	}
	if a.through() == 0 {
		if twin, err := p.twin(ctx, a); err != nil {
			return "", err
		} else if twin != nil {
			a.as(twin)
			return Evaluating, nil
		}
	}
	model := a.next()
	run, err := p.prepare(ctx, a, model)
	if err != nil {
		return "", err
	}
	done, err := p.Queue.Ask(ctx, p.job(a, model, run), queue.Listener{
		Worker: func(name string) { p.backlog.asks(a.ID, name == "") },
		Progress: func(line []byte) {
			if said, ok := readProgress(line); ok {
				p.progress(a, said)
			}
		},
	})
	p.backlog.asks(a.ID, false)
	switch {
	case errors.Is(err, queue.ErrJob):
		return "", held(ReasonNoModel, fmt.Sprintf("%d files lie beside the package's models, too many to be handed to a worker by their names: push the models with nothing but their external data", len(run.Package)))
	case errors.Is(err, queue.ErrResult):
		p.Log.Error("a worker's result cannot be used", "admission", a.ID, "error", err)
		err = held(ReasonInvalidOutput, "the worker's result is not usable; the server's log has the cause")
	case err != nil:
		return "", err
	default:
		a.Attempts, err = done.Attempts, told(done.Result)
	}
	p.metrics.sanitized(err, done.Took())
	if err != nil {
		return "", a.ofModel(model, err)
	}
	report, err := checkOutput(run, strings.TrimPrefix(model.Digest, "sha256:"), a.Decision.Transformation)
	if err != nil {
		return "", a.ofModel(model, err)
	}
	var before []ChangedFile
	for n := range a.through() {
		files, err := writtenFiles(run, p.outputDir(a.ID, n), n)
		if err != nil {
			return "", err
		}
		before = append(before, files...)
	}
	written, err := writtenFiles(run, p.outputDir(a.ID, a.through()), a.through())
	if err != nil {
		return "", err
	}
	if err := a.changed(model, written, before); err != nil {
		return "", err
	}
	a.sanitized(model.Name, report)
	return Evaluating, nil
}

// toldReasons are those that a worker can give.
var toldReasons = []Reason{
	ReasonInvalidModel, ReasonUnsupported, ReasonNoDataset, ReasonDataset, ReasonRuntime, ReasonCrashed, ReasonFailed, ReasonTimeout, ReasonOutOfMemory,
	ReasonInvalidOutput, ReasonAttempts, ReasonAccuracy,
}

// told is the verdict of a worker, which is not trusted, or nil.
func told(r *queue.Result) error {
	switch {
	case r.Reason == "":
		return nil
	case !slices.Contains(toldReasons, Reason(r.Reason)):
		return held(ReasonInvalidOutput, fmt.Sprintf("the worker's result is not usable: there is no reason %q", printable(r.Reason, 40)))
	}
	return held(Reason(r.Reason), printable(r.Message, 1200))
}

// jobKey names the run of the sanitizer that the admission needs next: the same until its result is recorded.
func (a *Admission) jobKey() string { return fmt.Sprintf("%s-%d", a.ID, a.Runs) }

// job is what the workers are asked for.
func (p *Pipeline) job(a *Admission, model Model, run sanitizerRun) queue.Job {
	j := queue.Job{
		Key: a.jobKey(), Label: queue.LabelAny, Server: p.serverID, Dir: p.runDir(a.ID, a.through()), Model: model.Name, Dataset: a.Decision.Dataset,
		Provider: a.Decision.Parameters.Provider, Args: run.Args, Most: run.Most,
	}
	if j.Provider == labelCUDA && !p.Queue.Private() {
		j.Label = labelCUDA
	}
	for _, f := range run.Package {
		j.In = append(j.In, f.Name)
	}
	return j
}

// labelCUDA is the label of jobs whose decision names the provider cuda.
const labelCUDA = "cuda"

// Labels are those that jobs can have.
var Labels = []string{queue.LabelAny, labelCUDA}

// withdraw takes a job out of the queue whose result is recorded, or not wanted any more. What the queue does not hear of now is
// swept away later.
func (p *Pipeline) withdraw(key string) {
	p.workers.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := p.Queue.Withdraw(ctx, key); err != nil {
			p.Log.Warn("a job that is done stays in the queue for a while", "job", key, "error", err)
		}
	})
}

// prepare makes the scratch folder and says how the sanitizer is to be run.
func (p *Pipeline) prepare(ctx context.Context, a *Admission, model Model) (sanitizerRun, error) {
	dir := p.runDir(a.ID, a.through())
	if err := os.RemoveAll(dir); err != nil {
		return sanitizerRun{}, err
	}
	in := filepath.Join(dir, "in")
	if err := os.MkdirAll(in, 0o700); err != nil {
		return sanitizerRun{}, err
	}
	pkg, err := p.registry.Fetch(ctx, a.Source.Repository, a.Source.Digest, in)
	if err != nil {
		return sanitizerRun{}, p.unreadable(a, err)
	}
	name := model.Name
	run := sanitizerRun{
		Out: filepath.Join(p.outputDir(a.ID, a.through()), name), Report: filepath.Join(dir, "report.json"), Dir: filepath.Join(dir, "tmp"), Package: pkg.Files,
		Most: p.Sanitizer.Model.Bytes,
	}
	for _, f := range pkg.Files {
		if f.Name == name {
			run.Model = f.Path
		}
	}
	if run.Model == "" {
		return sanitizerRun{}, held(ReasonUnreadable, "the quarantined package does not give back its model file")
	}
	run.Args = p.sanitizerArgs(a)
	return run, errors.Join(os.MkdirAll(run.Dir, 0o700), os.MkdirAll(filepath.Dir(run.Out), 0o700))
}

// runDir is the scratch folder of the run for the n-th model. The first one's holds those of the others: to begin anew clears all.
func (p *Pipeline) runDir(id string, n int) string {
	if n == 0 {
		return p.scratch(id)
	}
	return filepath.Join(p.scratch(id), fmt.Sprintf("model-%d", n))
}

// outputDir is where the run for the n-th model writes the model and its external data, each under its name in the package.
func (p *Pipeline) outputDir(id string, n int) string { return filepath.Join(p.runDir(id, n), "out") }

// outputThere reports whether every file that the runs wrote is still there. A twin's are in the registry.
func (p *Pipeline) outputThere(a *Admission) bool {
	if a.Twin != nil {
		return true
	}
	for _, f := range a.Changed {
		if _, err := os.Stat(filepath.Join(p.outputDir(a.ID, f.Model), f.Name)); err != nil {
			return false
		}
	}
	return len(a.Changed) > 0
}

// annotationPreprocess is the manifest annotation by which whoever pushes a model says how pixels become its input. A wrong one costs
// accuracy, which the release question sees.
const annotationPreprocess = "dev.grindstone.preprocess"

// jobFlags are the flags of the sanitize command that a job can have. Each has a value.
var jobFlags = []string{
	"transform", "epochs", "grind-epochs", "steps", "grind-steps", "batch", "samples", "lr", "angle", "preprocess", "preprocess-from",
}

// sanitizerArgs are the flags of the sanitize command for a decision.
func (p *Pipeline) sanitizerArgs(a *Admission) []string {
	var args []string
	text := func(flag, value string) {
		if value != "" {
			args = append(args, "--"+flag, value)
		}
	}
	number := func(flag string, value, otherwise float64) {
		if value == 0 {
			value = otherwise
		}
		if value != 0 {
			args = append(args, "--"+flag, strconv.FormatFloat(value, 'f', -1, 64))
		}
	}
	d := a.Decision
	q, def := d.Parameters, p.Defaults
	text("transform", d.Transformation)
	number("epochs", float64(q.Epochs), float64(def.Epochs))
	number("grind-epochs", float64(q.GrindEpochs), float64(def.GrindEpochs))
	number("steps", float64(q.Steps), float64(def.Steps))
	number("grind-steps", float64(q.GrindSteps), float64(def.GrindSteps))
	number("batch", float64(q.Batch), float64(def.Batch))
	number("samples", float64(q.Samples), float64(def.Samples))
	number("lr", q.LearningRate, def.LearningRate)
	if d.Transformation == string(sanitize.Rotate2D) {
		number("angle", q.Angle, def.Angle)
	}
	for _, source := range []struct{ name, value string }{
		{"policy", q.Preprocessing}, {"annotation", a.Source.Annotations[annotationPreprocess]}, {"config", def.Preprocessing},
	} {
		if source.value != "" {
			return append(args, "--preprocess", source.value, "--preprocess-from", source.name)
		}
	}
	return args
}

// firstOf returns the first text that is not empty.
func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
