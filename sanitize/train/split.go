package train

import (
	"context"
	"errors"
	"fmt"

	"grindstone/sanitize/ort"
)

// steps does a chunk of steps, in smaller micro-batches where memory does not suffice, and returns how many it has done.
func (t *Trainer) steps(ctx context.Context, feed []*ort.Array, metrics *ort.Array) (done int, err error) {
	k := int(metrics.Shape[0])
	err = t.splitting(func() error {
		rest := make([]*ort.Array, len(feed))
		for i, a := range feed {
			rest[i] = span(a, done, k)
		}
		n, err := t.engine.steps(ctx, rest, span(metrics, done, k))
		done += n
		return err
	})
	return done, err
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

// shrink rebuilds the engine with smaller micro-batches, and keeps the state. If it cannot, the engine before has it still, for the next try.
func (t *Trainer) shrink(micro int) error {
	before := t.engine
	if before != nil {
		if err := before.Close(); err != nil {
			return err
		}
	}
	t.o.Micro = micro
	if err := t.build(); err != nil || before == nil {
		return err
	}
	return t.engine.now().take(before.now())
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
