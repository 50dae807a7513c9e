package sanitize

import (
	"context"
	"errors"
	"fmt"
	"math"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// evalBatch is the batch size of inference; small enough for the caches of a CPU.
const evalBatch = 100

// NewRate is a share with its Wilson score interval at 95 % (Wilson 1927).
func NewRate(hits, count int) Rate {
	if count == 0 {
		return Rate{High: 1}
	}
	const z = 1.959963984540054
	n, p := float64(count), float64(hits)/float64(count)
	center := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return Rate{Value: p, Hits: hits, Count: count, Low: max(0, center-half), High: min(1, center+half)}
}

// String is the share in percent with its interval and count.
func (r Rate) String() string {
	return fmt.Sprintf("%.2f %% [%.2f, %.2f] (%d of %d)", 100*r.Value, 100*r.Low, 100*r.High, r.Hits, r.Count)
}

// Attack names a backdoor to measure: inputs with the trigger should be classified as the target.
type Attack struct {
	Trigger *data.Trigger
	Target  int
}

// Evaluation is what a model does on clean and, with an attack, on triggered images.
type Evaluation struct {
	CDA Rate `json:"cda"` // clean data accuracy
	// With an attack, over the images that are not of the target class:
	ASR   *Rate `json:"asr,omitempty"`       // attack success rate: triggered images classified as the target
	Floor *Rate `json:"asr_floor,omitempty"` // untriggered images classified as the target: what ASR is without any backdoor
	ARR   *Rate `json:"arr,omitempty"`       // attack recovery rate: triggered images classified as their true class
}

// AtChance reports whether the clean accuracy is not clearly better than guessing among the classes.
func (e *Evaluation) AtChance(classes int) bool { return atChance(e.CDA, classes) }

// Evaluate measures a classifier on a dataset. Values replaces weights, and may be nil.
func Evaluate(ctx context.Context, c *classifier.Classifier, values map[string][]float32, p data.Preprocess, d *data.Dataset, attack *Attack, run ort.Options) (*Evaluation, error) {
	return EvaluateTelling(ctx, c, values, p, d, attack, run, func(int, int) {})
}

// EvaluateTelling is Evaluate that tells after each batch how many images of all have been looked at. With an attack every image is looked at twice.
func EvaluateTelling(ctx context.Context, c *classifier.Classifier, values map[string][]float32, p data.Preprocess, d *data.Dataset, attack *Attack, run ort.Options, tell func(done, all int)) (*Evaluation, error) {
	all := d.Len()
	if attack != nil {
		all *= 2
	}
	f, err := train.NewForward(c, p.Scale, p.Shift, values, []string{c.Logits}, run)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	clean, err := predict(ctx, f, p, d, nil, func(done int) { tell(done, all) })
	if err != nil {
		return nil, err
	}
	e := &Evaluation{CDA: accuracy(clean, d)}
	if attack == nil {
		return e, nil
	}
	triggered, err := predict(ctx, f, p, d, attack.Trigger, func(done int) { tell(d.Len()+done, all) })
	if err != nil {
		return nil, err
	}
	others, success, floor, recovered := 0, 0, 0, 0
	for i := range d.Len() {
		_, label := d.At(i)
		if label == attack.Target {
			continue
		}
		others++
		success += count(triggered[i] == attack.Target)
		floor += count(clean[i] == attack.Target)
		recovered += count(triggered[i] == label)
	}
	asr, base, arr := NewRate(success, others), NewRate(floor, others), NewRate(recovered, others)
	e.ASR, e.Floor, e.ARR = &asr, &base, &arr
	return e, nil
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func accuracy(predicted []int, d *data.Dataset) Rate {
	hits := 0
	for i, p := range predicted {
		_, label := d.At(i)
		hits += count(p == label)
	}
	return NewRate(hits, len(predicted))
}

// predict returns the class of every image, with the trigger stamped on it first if there is one. It tells after each batch how many it has.
func predict(ctx context.Context, f *train.Forward, p data.Preprocess, d *data.Dataset, t *data.Trigger, tell func(done int)) ([]int, error) {
	out := make([]int, 0, d.Len())
	err := eachBatch(ctx, f, p, d, t, func(first int, values []*ort.Array) {
		logits := values[0]
		classes := int(logits.Shape[1])
		for r := range int(logits.Shape[0]) {
			row := logits.F32[r*classes : (r+1)*classes]
			best := 0
			for k, v := range row {
				if v > row[best] {
					best = k
				}
			}
			out = append(out, best)
		}
		tell(len(out))
	})
	return out, err
}

// eachBatch runs a forward graph over a dataset in order.
func eachBatch(ctx context.Context, f *train.Forward, p data.Preprocess, d *data.Dataset, t *data.Trigger, done func(first int, values []*ort.Array)) error {
	per := d.Height * d.Width * d.Channels
	buffer, stamped := make([]byte, evalBatch*per), make([]byte, per)
	size := evalBatch
	for first := 0; first < d.Len(); first += evalBatch {
		n := min(evalBatch, d.Len()-first)
		for i := range n {
			pixels, _ := d.At(first + i)
			if t != nil {
				t.Apply(stamped, pixels)
				pixels = stamped
			}
			p.Pack(buffer[i*per:(i+1)*per], pixels)
		}
		if err := inPieces(ctx, f, buffer[:n*per], n, &size, func(at int, values []*ort.Array) { done(first+at, values) }); err != nil {
			return err
		}
	}
	return nil
}

// inPieces runs a forward graph over n images, size at a time. Where memory does not suffice it goes on with half as many.
func inPieces(ctx context.Context, f *train.Forward, images []byte, n int, size *int, done func(first int, values []*ort.Array)) error {
	per := len(images) / n
	for first := 0; first < n; {
		m := min(*size, n-first)
		values, err := f.Run(ctx, images[first*per:(first+m)*per])
		if errors.Is(err, ort.ErrMemory) && m > 1 {
			*size = m / 2
			continue
		}
		if err != nil {
			return err
		}
		done(first, values)
		first += m
	}
	return nil
}
