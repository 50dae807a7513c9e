package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// Augment changes training images at random: pad by Pad pixels on every side and crop back to the image's size at a random place,
// mirror half of them, and paint a square of Cutout pixels a side at a random place (DeVries and Taylor, arXiv 1708.04552: the
// centre is uniform over the image, so that a part of the square may fall outside).
type Augment struct {
	Pad    int
	Cutout int // side of the square, 0: none
	Flip   bool
	Fill   [4]byte // value of padding and square, by the dataset's channels
}

// FeedOptions say what a Feeder delivers.
type FeedOptions struct {
	Batch         int      // images a step
	StepsPerChunk int      // at most; 0: 1
	Steps         int      // in all
	Augment       *Augment // nil: images as they are
	Seed          uint64   // of order and augmentation
}

// Chunk is the input of some training steps, in one piece.
type Chunk struct {
	Steps, Batch int
	Images       []byte  // [Steps, Batch, image in the model's layout and channel order]
	Labels       []int64 // [Steps, Batch]
	Index        []int32 // [Steps, Batch]: row in the dataset given to NewFeeder
}

// Feeder delivers shuffled, augmented batches, prepared in a goroutine ahead of their use. Every image comes once an epoch; the last
// images of an epoch share a batch with the first of the next one, so that every batch is full. The sequence depends on the seed
// alone, neither on the chunks' size nor on timing.
type Feeder struct {
	ready  chan *Chunk
	free   chan *Chunk
	done   chan struct{} // closed when the goroutine has ended
	err    error         // why it ended; read after done
	cancel context.CancelFunc
	inner  context.Context
}

// NewFeeder starts to prepare batches. What is wrong with its arguments is the error of the first Next. Close it after use.
func NewFeeder(ctx context.Context, d *Dataset, p Preprocess, o FeedOptions) *Feeder {
	if o.StepsPerChunk <= 0 {
		o.StepsPerChunk = 1
	}
	f := &Feeder{ready: make(chan *Chunk, 1), free: make(chan *Chunk, 3), done: make(chan struct{})}
	f.inner, f.cancel = context.WithCancel(ctx)
	go func() {
		defer close(f.done)
		if f.err = checkFeed(d, p, o); f.err == nil {
			f.err = f.produce(newSampler(d, p, o), o)
		}
		if !errors.Is(f.err, io.EOF) && ctx.Err() == nil && f.inner.Err() != nil {
			f.err = ErrClosed
		}
	}()
	return f
}

func checkFeed(d *Dataset, p Preprocess, o FeedOptions) error {
	fail := func(format string, a ...any) error {
		return &Error{Path: d.Name, Err: fmt.Errorf("%w: %s", ErrOption, fmt.Sprintf(format, a...))}
	}
	if d.Len() == 0 {
		return fail("no images to feed")
	}
	if err := p.check(d); err != nil {
		return &Error{Path: d.Name, Err: err}
	}
	if o.Batch < 1 || o.Steps < 1 {
		return fail("%d steps of %d images; both must be 1 or more", o.Steps, o.Batch)
	}
	if a := o.Augment; a != nil && (a.Pad < 0 || a.Cutout < 0 || a.Pad > max(d.Height, d.Width) || a.Cutout > 2*max(d.Height, d.Width)) {
		return fail("padding of %d and cutout of %d pixels on %dx%d images", a.Pad, a.Cutout, d.Height, d.Width)
	}
	return nil
}

// produce fills chunks until all steps are delivered or the feeder is closed.
func (f *Feeder) produce(s *sampler, o FeedOptions) error {
	for left := o.Steps; left > 0; {
		steps := min(left, o.StepsPerChunk)
		var c *Chunk
		select {
		case c = <-f.free:
		default:
			n := o.StepsPerChunk * o.Batch
			c = &Chunk{Images: make([]byte, n*s.size), Labels: make([]int64, n), Index: make([]int32, n)}
		}
		n := steps * o.Batch
		c.Steps, c.Batch = steps, o.Batch
		c.Images, c.Labels, c.Index = c.Images[:n*s.size], c.Labels[:n], c.Index[:n]
		for i := range n {
			if i%o.Batch == 0 && f.inner.Err() != nil {
				return f.inner.Err()
			}
			c.Index[i], c.Labels[i] = s.next(c.Images[i*s.size : (i+1)*s.size])
		}
		select {
		case f.ready <- c:
		case <-f.inner.Done():
			return f.inner.Err()
		}
		left -= steps
	}
	return io.EOF
}

// Next returns the next chunk, waiting for it; io.EOF after the last. The chunk is the caller's until given back with Recycle.
func (f *Feeder) Next() (*Chunk, error) {
	select {
	case c := <-f.ready:
		return c, nil
	case <-f.done:
	}
	select { // what was ready before the end
	case c := <-f.ready:
		return c, nil
	default:
		return nil, f.err
	}
}

// Recycle gives a chunk's memory back for a later chunk. Without it every chunk is new memory.
func (f *Feeder) Recycle(c *Chunk) {
	select {
	case f.free <- c:
	default:
	}
}

// Close ends the goroutine and waits for it. It may be called more than once.
func (f *Feeder) Close() {
	f.cancel()
	<-f.done
}

// sampler draws augmented images, epoch after epoch.
type sampler struct {
	data  *Dataset
	p     Preprocess
	a     Augment
	size  int
	order []int32
	at    int
	rng   *rand.Rand
}

func newSampler(d *Dataset, p Preprocess, o FeedOptions) *sampler {
	s := &sampler{data: d, p: p, size: d.Size(), order: make([]int32, d.Len()), at: d.Len(), rng: random(o.Seed)}
	if o.Augment != nil {
		s.a = *o.Augment
	}
	for i := range s.order {
		s.order[i] = int32(i)
	}
	return s
}

// next writes one image in the model's layout and returns its row and label.
func (s *sampler) next(dst []byte) (row int32, label int64) {
	if s.at == len(s.order) {
		s.rng.Shuffle(len(s.order), func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
		s.at = 0
	}
	row = s.order[s.at]
	s.at++
	px, l := s.data.At(int(row))
	to := placement{fill: s.a.Fill}
	if n := 2*s.a.Pad + 1; n > 1 {
		to.dy, to.dx = s.rng.IntN(n)-s.a.Pad, s.rng.IntN(n)-s.a.Pad
	}
	to.flip = s.a.Flip && s.rng.IntN(2) == 1
	s.p.place(dst, px, to)
	if side := s.a.Cutout; side > 0 {
		h, w := s.p.Height, s.p.Width
		top, left := s.rng.IntN(h)-side/2, s.rng.IntN(w)-side/2
		for y := max(top, 0); y < min(top+side, h); y++ {
			s.p.fillRow(dst, y, max(left, 0), min(left+side, w), s.a.Fill)
		}
	}
	return row, int64(l)
}
