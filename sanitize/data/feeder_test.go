package data

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func unit(t testing.TB, layout Layout, d *Dataset) Preprocess {
	t.Helper()
	p, err := Named("unit", layout, d.Height, d.Width, d.Channels)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// drain collects everything a feeder delivers.
func drain(t testing.TB, f *Feeder) (images []byte, labels []int64, index []int32, steps []int) {
	t.Helper()
	defer f.Close()
	for {
		c, err := f.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Labels) != c.Steps*c.Batch || len(c.Index) != len(c.Labels) || len(c.Images)%len(c.Labels) != 0 {
			t.Fatalf("a chunk of %d steps of %d has %d labels, %d rows and %d bytes", c.Steps, c.Batch, len(c.Labels), len(c.Index), len(c.Images))
		}
		images, labels, index, steps = append(images, c.Images...), append(labels, c.Labels...), append(index, c.Index...), append(steps, c.Steps)
		f.Recycle(c)
	}
}

func TestFeederVisitsEveryImageOnceAnEpoch(t *testing.T) {
	d := noise(t, 50, 5, 4, 4, 3)
	p := unit(t, NCHW, d)
	// 7 does not divide 50: batches span epochs.
	images, labels, index, steps := drain(t, NewFeeder(context.Background(), d, p, FeedOptions{Batch: 7, StepsPerChunk: 4, Steps: 50, Seed: 1}))
	if !slices.Equal(steps, []int{4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2}) {
		t.Errorf("steps of the chunks: %v", steps)
	}
	want := make([]byte, d.Size())
	for epoch := range 7 {
		part := index[epoch*50 : (epoch+1)*50]
		if sorted := slices.Sorted(slices.Values(part)); len(slices.Compact(sorted)) != 50 {
			t.Errorf("epoch %d visits %v", epoch, part)
		}
		if epoch > 0 && slices.Equal(part, index[:50]) {
			t.Error("two epochs have the same order")
		}
	}
	for i, row := range index {
		px, label := d.At(int(row))
		p.Pack(want, px)
		if labels[i] != int64(label) || !bytes.Equal(images[i*len(want):(i+1)*len(want)], want) {
			t.Fatalf("image %d is not row %d", i, row)
		}
	}
}

// The sequence depends on the seed, not on how it is cut into chunks, nor on whether chunks are given back.
func TestFeederIsDeterministic(t *testing.T) {
	d := noise(t, 40, 4, 8, 8, 3)
	p := unit(t, NHWC, d)
	o := FeedOptions{Batch: 8, StepsPerChunk: 1, Steps: 20, Seed: 5, Augment: &Augment{Pad: 2, Cutout: 3, Flip: true}}
	a, _, _, _ := drain(t, NewFeeder(context.Background(), d, p, o))
	o.StepsPerChunk = 7
	b, _, _, _ := drain(t, NewFeeder(context.Background(), d, p, o))
	if !bytes.Equal(a, b) {
		t.Error("the chunks' size changes the sequence")
	}
	f := NewFeeder(context.Background(), d, p, o)
	defer f.Close()
	var kept []byte
	for c, err := f.Next(); err == nil; c, err = f.Next() {
		kept = append(kept, c.Images...)
	}
	if !bytes.Equal(a, kept) {
		t.Error("keeping the chunks changes the sequence")
	}
	o.Seed = 6
	c, _, _, _ := drain(t, NewFeeder(context.Background(), d, p, o))
	if bytes.Equal(a, c) {
		t.Error("another seed gives the same sequence")
	}
}

// place against the definition: pixel (y, x) of the result is the padded image's at (y+dy, x+dx), after mirroring.
func TestPlace(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, c := range []int{1, 3, 4} {
		for _, layout := range []Layout{NCHW, NHWC} {
			for _, bgr := range []bool{false, true} {
				if bgr && c == 1 {
					continue
				}
				d := noise(t, 2, 2, 5, 7, c)
				px, _ := d.At(0)
				p := Preprocess{Layout: layout, Height: 5, Width: 7, Channels: c, BGR: bgr}
				for range 200 {
					a := placement{dy: rng.IntN(17) - 8, dx: rng.IntN(21) - 10, flip: rng.IntN(2) == 1, fill: [4]byte{11, 22, 33, 44}}
					got := make([]byte, d.Size())
					p.place(got, px, a)
					for y := range 5 {
						for x := range 7 {
							for k := range c {
								from := k
								if bgr && k < 3 {
									from = 2 - k
								}
								sx := x
								if a.flip {
									sx = 6 - x
								}
								sy, sx := y+a.dy, sx+a.dx
								want := a.fill[from]
								if sy >= 0 && sy < 5 && sx >= 0 && sx < 7 {
									want = px[(sy*7+sx)*c+from]
								}
								at := (k*5+y)*7 + x
								if layout == NHWC {
									at = (y*7+x)*c + k
								}
								if got[at] != want {
									t.Fatalf("%s bgr=%v channels=%d %+v: (%d,%d,%d) is %d, want %d", layout, bgr, c, a, y, x, k, got[at], want)
								}
							}
						}
					}
				}
			}
		}
	}
}

// Cutout covers a square whose centre is uniform, so corners are covered about a quarter as often as the middle.
func TestAugmentStatistics(t *testing.T) {
	const n, side = 8000, 16
	pixels := bytes.Repeat([]byte{200}, 2*side*side)
	d, err := New("flat", []string{"a", "b"}, side, side, 1, pixels, []int32{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	images, _, _, _ := drain(t, NewFeeder(context.Background(), d, unit(t, NCHW, d),
		FeedOptions{Batch: 100, StepsPerChunk: 10, Steps: n / 100, Augment: &Augment{Cutout: 4, Fill: [4]byte{7}}}))
	var hits [side * side]int
	for i, v := range images {
		switch v {
		case 7:
			hits[i%(side*side)]++
		case 200:
		default:
			t.Fatalf("a pixel of %d", v)
		}
	}
	middle, corner := float64(hits[8*side+8])/n, float64(hits[0])/n
	if wantM, wantC := 16./256, 4./256; middle < .8*wantM || middle > 1.2*wantM || corner < .5*wantC || corner > 2.3*wantC {
		t.Errorf("the middle is covered in %.4f and the corner in %.4f of the images", middle, corner)
	}

	// Padding: crops are uniform over all (2*pad+1)^2 places. The only dark pixel of the image tells where it went.
	pixels = bytes.Repeat([]byte{200}, 2*9*9)
	pixels[4*9+4], pixels[81+4*9+4] = 0, 0
	if d, err = New("dot", []string{"a", "b"}, 9, 9, 1, pixels, []int32{0, 1}); err != nil {
		t.Fatal(err)
	}
	images, _, _, _ = drain(t, NewFeeder(context.Background(), d, unit(t, NCHW, d),
		FeedOptions{Batch: 90, StepsPerChunk: 10, Steps: 100, Augment: &Augment{Pad: 1, Flip: true, Fill: [4]byte{100}}}))
	places := map[int]int{}
	for i := range 9000 {
		places[bytes.IndexByte(images[i*81:(i+1)*81], 0)]++
	}
	for _, dy := range []int{3, 4, 5} {
		for _, dx := range []int{3, 4, 5} {
			if got := places[dy*9+dx]; got < 850 || got > 1150 {
				t.Errorf("the crop at %d,%d comes %d times of 9000", dy, dx, got)
			}
		}
	}
	if len(places) != 9 {
		t.Errorf("%d places", len(places))
	}
}

func TestFeederErrors(t *testing.T) {
	d := noise(t, 10, 2, 4, 4, 3)
	p := unit(t, NCHW, d)
	wide := p
	wide.Width = 5
	for _, tt := range []struct {
		p   Preprocess
		o   FeedOptions
		say string
	}{
		{wide, FeedOptions{Batch: 1, Steps: 1}, "4x5x3"},
		{p, FeedOptions{Batch: 0, Steps: 1}, "0 images"},
		{p, FeedOptions{Batch: 1}, "0 steps"},
		{p, FeedOptions{Batch: 1, Steps: 1, Augment: &Augment{Pad: -1}}, "padding of -1"},
		{p, FeedOptions{Batch: 1, Steps: 1, Augment: &Augment{Cutout: 100}}, "cutout of 100"},
	} {
		f := NewFeeder(context.Background(), d, tt.p, tt.o)
		_, err := f.Next()
		f.Close()
		if !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%+v: %v", tt.o, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := NewFeeder(ctx, d, p, FeedOptions{Batch: 2, Steps: 1 << 40})
	if _, err := f.Next(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := last(f); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	f.Close()
	f = NewFeeder(context.Background(), d, p, FeedOptions{Batch: 2, Steps: 1 << 40})
	f.Close()
	f.Close()
	if err := last(f); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// last is the error that ends a feeder.
func last(f *Feeder) error {
	for {
		if _, err := f.Next(); err != nil {
			return err
		}
	}
}

// A feeder whose chunks come back allocates nothing more.
func TestFeederReusesMemory(t *testing.T) {
	d := noise(t, 500, 5, 32, 32, 3)
	f := NewFeeder(context.Background(), d, unit(t, NCHW, d), FeedOptions{Batch: 64, StepsPerChunk: 2, Steps: 1 << 30, Augment: &Augment{Pad: 4, Cutout: 8, Flip: true}})
	defer f.Close()
	step := func() {
		c, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		f.Recycle(c)
	}
	for range 8 {
		step()
		time.Sleep(time.Millisecond)
	}
	if n := testing.AllocsPerRun(50, func() { step(); time.Sleep(time.Millisecond) }); n >= 1 {
		t.Errorf("%v allocations a chunk", n)
	}
}

func BenchmarkSampler(b *testing.B) {
	d := noise(b, 5000, 10, 32, 32, 3)
	for name, o := range map[string]FeedOptions{
		"plain":         {},
		"crop":          {Augment: &Augment{Pad: 4}},
		"crop+cutout":   {Augment: &Augment{Pad: 4, Cutout: 8}},
		"crop+cut+flip": {Augment: &Augment{Pad: 4, Cutout: 8, Flip: true}},
	} {
		for _, layout := range []Layout{NCHW, NHWC} {
			b.Run(name+"/"+string(layout), func(b *testing.B) {
				s := newSampler(d, unit(b, layout, d), o)
				dst := make([]byte, s.size)
				for b.Loop() {
					s.next(dst)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "images/s")
			})
		}
	}
}
