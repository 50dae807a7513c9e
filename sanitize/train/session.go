package train

import (
	"context"
	"errors"
	"fmt"

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

// steps runs a chunk of steps.
func (t *Trainer) steps(ctx context.Context, feed []*ort.Array, metrics *ort.Array) error {
	return t.splitting(func() error {
		return t.session.Run(ctx, append(t.state[:], feed...), append(t.next[:], metrics))
	})
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
