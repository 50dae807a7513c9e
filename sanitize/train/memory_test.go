package train_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// TestStepMemory: with 1.3 times the estimate the runtime does a step, with less than the estimate it cannot.
func TestStepMemory(t *testing.T) {
	for name, tt := range map[string]struct {
		c     *classifier.Classifier
		batch int
	}{
		"convolutions":        {plainNet(t), 512},
		"BatchNormalization":  {smallNet(t), 30000},
		"Wide ResNet-16":      {openShared(t, "nad-wrn16-badnet.onnx"), 32},
		"images innermost":    {openShared(t, "vnncomp-cifar10_medium_nhwc.onnx"), 64},
		"plain small batches": {openShared(t, "nad-wrn16-badnet.onnx"), 4},
	} {
		t.Run(name, func(t *testing.T) {
			p := unit(t, tt.c)
			o := train.StepOptions{Batch: tt.batch, Scale: p.Scale, Shift: p.Shift, Feature: true, Momentum: 0.9}
			need, err := train.StepMemory(tt.c, o)
			if err != nil {
				t.Fatal(err)
			}
			d := colours(t, rand.New(rand.NewPCG(3, 3)), tt.c.Height, tt.batch)
			targets := make([]float32, tt.batch*tt.c.FeatureWidth)
			t.Cleanup(func() { ort.LimitMemory(0) })
			short := errors.New("too little")
			step := func(limit int64) error {
				if err := ort.LimitMemory(limit); err != nil {
					t.Fatal(err)
				}
				defer ort.LimitMemory(0)
				split := false
				o.Split = func(int, error) { split = true }
				tr, err := train.NewTrainer(tt.c, o, ort.Options{Provider: ort.CPU, Threads: 1})
				if err != nil {
					return err
				}
				defer tr.Close()
				_, err = fit(t.Context(), t, tr, tt.c, d, targets, train.Plan{Steps: 2, Rate: 0.01}, tt.batch, 1, nothing)
				if err == nil && split {
					err = short
				}
				return err
			}
			if err := step(need*13/10 + 4<<20); err != nil {
				t.Errorf("estimated %d KiB, with %d KiB: %v", need>>10, (need*13/10+4<<20)>>10, err)
			}
			if err := step(need * 8 / 10); !errors.Is(err, short) && !errors.Is(err, ort.ErrMemory) {
				t.Errorf("estimated %d KiB, with %d KiB: %v", need>>10, (need*8/10)>>10, err)
			}
		})
	}
}

// TestFitMicro: the largest micro-batch that fits, the smallest where none does.
func TestFitMicro(t *testing.T) {
	c := plainNet(t)
	p := unit(t, c)
	o := train.StepOptions{Batch: 96, Scale: p.Scale, Shift: p.Shift, Feature: true}
	need := map[int]int64{}
	for _, micro := range []int{96, 48, 32, 24, 16, 2} {
		o.Micro = micro
		bytes, err := train.StepMemory(c, o)
		if err != nil {
			t.Fatal(err)
		}
		need[micro] = bytes
	}
	o.Micro = 0
	for _, tt := range []struct {
		budget int64
		want   int
	}{{1 << 40, 96}, {need[96], 96}, {need[96] - 1, 48}, {need[24], 24}, {1, 2}} {
		micro, bytes, err := train.FitMicro(c, o, tt.budget)
		if err != nil || micro != tt.want || bytes != need[tt.want] {
			t.Errorf("with %d bytes: micro-batches of %d that need %d, want %d; %v", tt.budget, micro, bytes, tt.want, err)
		}
	}
}

// TestWaited: training that waits for its images says so.
func TestWaited(t *testing.T) {
	c := smallNet(t)
	tr := trainer(t, c, 6, false)
	feed := data.NewFeeder(t.Context(), smallData(t, 30), unit(t, c), data.FeedOptions{Batch: 6, Steps: 3, Seed: 1})
	defer feed.Close()
	if err := tr.Run(t.Context(), feed, nil, train.Plan{Steps: 3, Rate: 0.01}, func([]train.Metrics) {}); err != nil {
		t.Fatal(err)
	}
	if tr.Waited <= 0 {
		t.Errorf("waited %v", tr.Waited)
	}
	if !slices.Contains([]int{6}, tr.Micro()) {
		t.Errorf("micro-batches of %d", tr.Micro())
	}
}
