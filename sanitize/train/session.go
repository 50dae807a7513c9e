package train

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"grindstone/sanitize/ort"
)

// build makes the step's session and arrays for its state.
func (t *Trainer) build() error {
	step, err := BuildStep(t.c, t.o)
	if err != nil {
		return err
	}
	if t.run.Provider != ort.CPU {
		portable(step.Model.Graph)
	}
	session, err := ort.NewModelSession(step.Model, t.run)
	if err != nil {
		return err
	}
	t.step, t.session = step, session
	p, st := length(step.Parameters), length(step.Statistics)
	for _, state := range []*[3]*ort.Array{&t.state, &t.next} {
		for i, n := range []int64{p, p, st} {
			state[i] = &ort.Array{Shape: []int64{n}, F32: make([]float32, n)}
		}
	}
	return nil
}

// Micro is the number of images that are in memory at once.
func (t *Trainer) Micro() int { return t.o.Micro }

// steps does a chunk of steps and returns how many it has done. On the CPU each is a run of its own: the runtime's Scan has two more copies
// of the state where it does several, and the state need not stay on a device.
func (t *Trainer) steps(ctx context.Context, feed []*ort.Array, metrics *ort.Array) (int, error) {
	k := int(metrics.Shape[0])
	per := k
	if t.run.Provider == ort.CPU {
		per = 1
	}
	for at := 0; at < k; at += per {
		part := make([]*ort.Array, len(feed))
		for i, a := range feed {
			part[i] = span(a, at, at+per)
		}
		err := t.splitting(func() error {
			return t.session.Run(ctx, append(t.state[:], part...), append(t.next[:], span(metrics, at, at+per)))
		})
		if err != nil {
			return at, err
		}
		t.state, t.next = t.next, t.state
	}
	return k, nil
}

// span is the part [from, to) of an array along its first axis, in the same memory.
func span(a *ort.Array, from, to int) *ort.Array {
	r := &ort.Array{Shape: slices.Clone(a.Shape)}
	r.Shape[0] = int64(to - from)
	n := 1
	for _, d := range a.Shape[1:] {
		n *= int(d)
	}
	switch from, to = from*n, to*n; {
	case a.F32 != nil:
		r.F32 = a.F32[from:to]
	case a.I64 != nil:
		r.I64 = a.I64[from:to]
	case a.U8 != nil:
		r.U8 = a.U8[from:to]
	}
	return r
}

// splitting does what is asked, and where memory does not suffice does it again, from the same state, with smaller micro-batches.
func (t *Trainer) splitting(do func() error) error {
	err := do()
	for errors.Is(err, ort.ErrMemory) {
		micro := divisor(t.o.Batch, t.o.Micro/2)
		if micro == 0 {
			return fmt.Errorf("%w; a batch of %d images cannot be split further than into %d at once", err, t.o.Batch, t.o.Micro)
		}
		if t.o.Split != nil {
			t.o.Split(micro, err)
		}
		if err = t.shrink(micro); err == nil {
			err = do()
		}
	}
	return err
}

// shrink rebuilds the step with smaller micro-batches, and keeps the state.
func (t *Trainer) shrink(micro int) error {
	var state [3]map[string][]float32
	old := t.step
	if old != nil {
		state[0], state[1], state[2] = read(t.state[0].F32, old.Parameters), read(t.state[1].F32, old.Parameters), read(t.state[2].F32, old.Statistics)
		if err := t.session.Close(); err != nil {
			return err
		}
	}
	t.o.Micro = micro
	if err := t.build(); err != nil || old == nil {
		return err
	}
	return errors.Join( // the order within the vectors may be another one
		Fill(t.state[0].F32, t.step.Parameters, state[0]),
		Fill(t.state[1].F32, t.step.Parameters, state[1]),
		Fill(t.state[2].F32, t.step.Statistics, state[2]))
}

// divisor returns the largest divisor of a batch that is at most limit images and at least 2; 0 when there is none.
func divisor(batch, limit int) int {
	for n := min(limit, batch); n >= 2; n-- {
		if batch%n == 0 {
			return n
		}
	}
	return 0
}
