package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// ErrDiverged means that the loss was no longer a number: the rate is too high for this network.
var ErrDiverged = errors.New("training diverged: the loss is not finite")

// Trainer trains a classifier.
type Trainer struct {
	// Waited is the time between the device's runs, in which it has nothing to do: waiting for the feeder, gathering targets, telling of progress.
	Waited time.Duration

	c      *classifier.Classifier
	o      StepOptions
	run    ort.Options
	engine engine               // nil until it is built
	fixed  map[string][]float32 // what is not trained
}

// NewTrainer builds the step of a classifier and starts at its weights.
func NewTrainer(c *classifier.Classifier, o StepOptions, run ort.Options) (*Trainer, error) {
	var err error
	if run.Provider, err = ort.Resolve(run.Provider); err != nil {
		return nil, err
	}
	if o.Forms == nil && run.Provider != ort.CPU {
		o.Forms = &grad.PlainForms // the layouts are the CPU's
	}
	if o.Micro == 0 {
		o.Micro = o.Batch
	}
	// A plan for one block of memory is made of the second run on, beside the memory of the first: the peak doubles, and nothing gets faster.
	run.NoPattern = true
	t := &Trainer{c: c, o: o, run: run}
	err = t.splitting(func() error {
		if t.engine != nil { // by splitting
			return nil
		}
		return t.build()
	})
	if err != nil {
		return nil, err
	}
	if err := t.Reset(Values(c)); err != nil {
		return nil, err
	}
	// Training allocates next to nothing, so that garbage of reading the model and building the step would stay to its end.
	debug.FreeOSMemory()
	return t, nil
}

// build makes the engine. The one before stays if it cannot.
func (t *Trainer) build() error {
	start := newDevice
	if t.run.Provider == ort.CPU {
		start = newHost
	}
	e, err := start(t.c, t.o, t.run)
	if err == nil {
		t.engine = e
	}
	return err
}

// Values returns a copy of all float constants of a classifier by name.
func Values(c *classifier.Classifier) map[string][]float32 {
	values := map[string][]float32{}
	for name, t := range c.Constants {
		if t.Type == onnx.Float {
			values[name] = append([]float32(nil), t.Floats()...)
		}
	}
	return values
}

// Reset puts the state back to the given weights, with no momentum.
func (t *Trainer) Reset(values map[string][]float32) error {
	t.fixed = maps.Clone(values)
	s := t.engine.now()
	for _, slot := range slices.Concat(s.slots, s.statisticsSlots) {
		delete(t.fixed, slot.Name)
	}
	return s.reset(values)
}

// Values returns all constants by name, with the trained ones as they are now.
func (t *Trainer) Values() map[string][]float32 {
	values := map[string][]float32{}
	for name, v := range t.fixed {
		values[name] = append([]float32(nil), v...)
	}
	s := t.engine.now()
	maps.Copy(values, read(s.parameters, s.slots))
	maps.Copy(values, read(s.statistics, s.statisticsSlots))
	return values
}

// Micro is the number of images that are in memory at once.
func (t *Trainer) Micro() int { return t.o.Micro }

// Provider is what the step runs on.
func (t *Trainer) Provider() ort.Provider { return t.engine.Provider() }

// Close frees the session.
func (t *Trainer) Close() error { return t.engine.Close() }

// Plan is a training schedule: cosine from Rate to zero over all steps, alpha as given for the first GrindSteps and for the rest.
type Plan struct {
	Steps, GrindSteps        int
	Rate                     float64
	AlphaGrind, AlphaRestore float64
}

// RateAt is the learning rate of a step.
func (p Plan) RateAt(step int) float64 {
	return p.Rate / 2 * (1 + math.Cos(math.Pi*float64(step)/float64(p.Steps)))
}

// AlphaAt is the weight of the feature loss at a step.
func (p Plan) AlphaAt(step int) float64 {
	if step < p.GrindSteps {
		return p.AlphaGrind
	}
	return p.AlphaRestore
}

// Metrics are a step's losses.
type Metrics struct {
	Step     int
	Loss     float64
	Feature  float64 // L_f
	Task     float64 // L_t
	Accuracy float64 // share of the augmented batch classified correctly
}

// Run trains until the feeder ends. Targets holds a row of feature targets for each row of the feeder's dataset; nil when the step has
// no feature loss. After each chunk of steps it calls done.
func (t *Trainer) Run(ctx context.Context, feeder *data.Feeder, targets []float32, p Plan, done func([]Metrics)) error {
	var rows, alpha, rate []float32
	step := 0
	wait := time.Now()
	for {
		chunk, err := feeder.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		k, n := chunk.Steps, chunk.Batch
		width := t.c.FeatureWidth
		rows, alpha, rate = resize(rows, k*n*width), resize(alpha, k), resize(rate, k)
		if targets != nil {
			for i, row := range chunk.Index {
				copy(rows[i*width:(i+1)*width], targets[int(row)*width:])
			}
		}
		for i := range k {
			alpha[i], rate[i] = float32(p.AlphaAt(step+i)), float32(p.RateAt(step+i))
		}
		K, N := int64(k), int64(n)
		metrics := &ort.Array{Shape: []int64{K, 4}, F32: make([]float32, 4*k)}
		feed := []*ort.Array{
			{Shape: append([]int64{K}, t.c.ImageShape(N)...), U8: chunk.Images},
			{Shape: []int64{K, N}, I64: chunk.Labels},
			{Shape: []int64{K, N, int64(width)}, F32: rows},
			{Shape: []int64{K, 1}, F32: alpha},
			{Shape: []int64{K, 1}, F32: rate},
		}
		t.Waited += time.Since(wait)
		if done, err := t.steps(ctx, feed, metrics); err != nil {
			return fmt.Errorf("training step %d: %w", step+done, err)
		}
		wait = time.Now()
		feeder.Recycle(chunk)
		out := make([]Metrics, k)
		for i := range out {
			m := metrics.F32[4*i:]
			out[i] = Metrics{Step: step + i, Loss: float64(m[0]), Feature: float64(m[1]), Task: float64(m[2]), Accuracy: float64(m[3])}
			if math.IsNaN(out[i].Loss) || math.IsInf(out[i].Loss, 0) {
				return fmt.Errorf("%w (step %d, rate %.3g)", ErrDiverged, step+i, p.RateAt(step+i))
			}
		}
		step += k
		done(out)
	}
}

func resize(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}
