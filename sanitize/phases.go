package sanitize

import (
	"context"
	"errors"
	"fmt"
	"time"

	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// StepsPerRun is the number of training steps between two reports of progress. A device does them in one call of the runtime.
const StepsPerRun = 8

// fineTune grinds and restores, at the rate given or found.
func (r *run) fineTune(ctx context.Context) error {
	o := train.StepOptions{
		Batch: r.Batch, Micro: r.MicroBatch, Scale: r.pre.Scale, Shift: r.pre.Shift, Feature: true,
		Momentum: float32(*r.Momentum), WeightDecay: float32(*r.WeightDecay), Split: r.outOfMemory,
	}
	if err := r.splitBatch(&o); err != nil {
		return err
	}
	t, err := train.NewTrainer(r.c, o, r.ort())
	if err != nil {
		return err
	}
	defer t.Close()
	r.report.Runtime.Provider, r.report.Runtime.Precision = t.Provider().LibraryName(), Float32
	if t.Provider() == ort.CUDA {
		r.report.Runtime.Precision = r.Precision
	}
	steps, grind := r.schedule(r.trainSet.Len())
	rate, from := r.LearningRate, "flag"
	if rate == 0 {
		from = "search"
		if rate, err = r.searchRate(ctx, t, steps); err != nil {
			return err
		}
	}
	plan := train.Plan{Steps: steps, GrindSteps: grind, Rate: rate, AlphaGrind: r.AlphaGrind, AlphaRestore: r.AlphaRestore}
	err = r.train(ctx, t, plan)
	if errors.Is(err, train.ErrDiverged) {
		plan.Rate /= 4
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("%v; trained again from the start at rate %g", err, plan.Rate))
		err = r.train(ctx, t, plan)
	}
	if err != nil {
		return err
	}
	r.report.Hyperparameters = r.hyperparameters(plan, from)
	if t.Micro() < r.Batch {
		r.report.Hyperparameters.MicroBatch = t.Micro()
	}
	r.values = t.Values()
	return nil
}

// leave is what a run of no steps does in place of training: all weights stay, those of the head too.
func (r *run) leave(context.Context) error {
	provider, err := ort.Resolve(r.Provider)
	if err != nil {
		return err
	}
	r.report.Runtime.Provider, r.report.Runtime.Precision = provider.LibraryName(), Float32
	r.report.Hyperparameters = r.hyperparameters(train.Plan{Rate: r.LearningRate, AlphaGrind: r.AlphaGrind, AlphaRestore: r.AlphaRestore}, "flag")
	r.values = train.Values(r.c)
	r.warn("no step of training was asked for: the model is as it was")
	return nil
}

func (r *run) hyperparameters(plan train.Plan, rateFrom string) Hyperparameters {
	perEpoch := float64(r.trainSet.Len()) / float64(r.Batch)
	h := Hyperparameters{
		Epochs: float64(plan.Steps) / perEpoch, GrindEpochs: float64(plan.GrindSteps) / perEpoch, Steps: plan.Steps, GrindSteps: plan.GrindSteps, BatchSize: r.Batch,
		LearningRate: plan.Rate, LearningRateFrom: rateFrom, Momentum: *r.Momentum, WeightDecay: *r.WeightDecay,
		Optimizer: "sgd-nesterov", Schedule: "cosine", AlphaGrind: plan.AlphaGrind, AlphaRestore: plan.AlphaRestore,
		Seed: r.Seed, Unfold: !r.NoUnfold, Augmentation: r.augmentation(),
	}
	if r.Transformation == Rotate2D {
		h.Angle = r.Angle
	}
	return h
}

// train runs the whole plan from the start weights and reports its phases.
func (r *run) train(ctx context.Context, t *train.Trainer, plan train.Plan) error {
	if err := t.Reset(r.start); err != nil {
		return err
	}
	begin := time.Now()
	grinding := phase{name: "grind", alpha: r.AlphaGrind}
	restoring := phase{name: "restore", alpha: r.AlphaRestore}
	before := begin
	err := r.runPlan(ctx, t, plan, r.Seed, func(ms []train.Metrics) {
		each := time.Since(before).Seconds() / float64(len(ms))
		before = time.Now()
		for _, m := range ms {
			if m.Step < plan.GrindSteps {
				grinding.add(m, each)
			} else {
				restoring.add(m, each)
			}
		}
		last := ms[len(ms)-1]
		name, elapsed, done := "grind", time.Since(begin).Seconds(), float64(last.Step+1)
		if last.Step >= plan.GrindSteps {
			name = "restore"
		}
		r.Progress(Progress{Phase: name, Step: last.Step + 1, Steps: plan.Steps, Loss: last.Loss,
			ImagesPerSecond: done * float64(r.Batch) / elapsed, Remaining: elapsed / done * (float64(plan.Steps) - done)})
	})
	if err != nil {
		return err
	}
	for _, p := range []*phase{&grinding, &restoring} {
		if len(p.metrics) > 0 {
			r.report.Phases = append(r.report.Phases, p.report())
		}
	}
	r.report.ImagesPerSecond = float64(plan.Steps*r.Batch) / time.Since(begin).Seconds()
	return nil
}

// augmentation names what is done to training images.
func (r *run) augmentation() []string {
	names := []string{}
	if !r.NoAugment {
		names = append(names, "random-crop", "cutout")
	}
	if r.mirror {
		names = append(names, "mirror")
	}
	return names
}

func (r *run) runPlan(ctx context.Context, t *train.Trainer, plan train.Plan, seed uint64, done func([]train.Metrics)) error {
	feed := r.feeder(ctx, data.FeedOptions{Batch: r.Batch, StepsPerChunk: StepsPerRun, Steps: plan.Steps, Seed: seed})
	defer feed.Close()
	return t.Run(ctx, feed, r.targets, plan, done)
}

// feeder delivers training images, augmented.
func (r *run) feeder(ctx context.Context, o data.FeedOptions) *data.Feeder {
	o.Augment = &data.Augment{Flip: r.mirror}
	if !r.NoAugment {
		o.Augment.Pad, o.Augment.Cutout = r.c.Height/8, r.c.Height/2
	}
	return data.NewFeeder(ctx, r.trainSet, r.pre, o)
}

// rates are the candidates of the search, from high to low. Short trials favour high rates: 0.2 wins them on the NAD network and ends two
// points of accuracy below 0.1, so that is where the list begins.
var rates = []float64{0.1, 0.05, 0.02, 0.01}

// searchRate finds the learning rate by clean accuracy alone, never by what happens to a backdoor: each candidate trains for a short
// while, by the whole schedule in small, and the one that classifies its own last batches best wins.
func (r *run) searchRate(ctx context.Context, t *train.Trainer, steps int) (float64, error) {
	short := min(max(steps/20, 40), 120)
	best, accuracy := 0.0, 0.0
	for i, rate := range rates {
		r.Progress(Progress{Phase: "search", Step: i, Steps: len(rates)})
		if err := t.Reset(r.start); err != nil {
			return 0, err
		}
		plan := train.Plan{Steps: short, GrindSteps: short * 2 / 5, Rate: rate, AlphaGrind: r.AlphaGrind, AlphaRestore: r.AlphaRestore}
		sum, n := 0.0, 0
		err := r.runPlan(ctx, t, plan, r.Seed+1, func(ms []train.Metrics) {
			for _, m := range ms {
				if m.Step >= short*4/5 {
					sum += m.Accuracy
					n++
				}
			}
		})
		switch {
		case errors.Is(err, train.ErrDiverged):
			continue
		case err != nil:
			return 0, err
		}
		if a := sum / float64(n); a > accuracy {
			best, accuracy = rate, a
		}
	}
	if best == 0 {
		return 0, ErrDoesNotImprove
	}
	return best, nil
}

// phase collects the metrics of grinding or restoration.
type phase struct {
	name    string
	alpha   float64
	metrics []train.Metrics
	seconds float64
}

// add takes a step's metrics and what it took in seconds.
func (p *phase) add(m train.Metrics, seconds float64) {
	p.metrics = append(p.metrics, m)
	p.seconds += seconds
}

func (p *phase) report() Phase {
	tenth := max(1, len(p.metrics)/10)
	ends := func(value func(train.Metrics) float64) Ends {
		var e Ends
		for i := range tenth {
			e.First += value(p.metrics[i]) / float64(tenth)
			e.Last += value(p.metrics[len(p.metrics)-1-i]) / float64(tenth)
		}
		return e
	}
	return Phase{
		Name: p.name, Alpha: p.alpha, Steps: len(p.metrics), Seconds: p.seconds,
		Loss:    ends(func(m train.Metrics) float64 { return m.Loss }),
		Feature: ends(func(m train.Metrics) float64 { return m.Feature }),
		Task:    ends(func(m train.Metrics) float64 { return m.Task }),
	}
}
