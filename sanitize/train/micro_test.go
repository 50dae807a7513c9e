package train_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// plainNet is a classifier of 8x8 RGB images without BatchNormalization. Its 3x3 convolutions have other layouts in large batches than in small
// ones, and so has their place in the vector of parameters.
func plainNet(t testing.TB) *classifier.Classifier {
	t.Helper()
	random := rand.New(rand.NewPCG(5, 6))
	b := onnx.NewBuilder()
	weight := weights(b, random, 1./8)
	b.Input("x", onnx.Float, -1, 3, 8, 8)
	y := b.Op("Relu", []string{b.Op("Conv", []string{"x", weight("conv1.w", 24, 3, 3, 3), weight("conv1.b", 24)}, onnx.Is("pads", 1, 1, 1, 1))})
	y = b.Op("Relu", []string{b.Op("Conv", []string{y, weight("conv2.w", 24, 24, 3, 3), weight("conv2.b", 24)}, onnx.Is("pads", 1, 1, 1, 1))})
	b.Named("feature", "Flatten", []string{b.Op("GlobalAveragePool", []string{y})})
	b.Named("logits", "Gemm", []string{"feature", weight("fc.w", 3, 24), weight("fc.b", 3)}, onnx.I("transB", 1))
	b.Output("logits", onnx.Float, -1, 3)
	c, err := classifier.New(b.Model(17), classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plainData(t testing.TB, n int) *data.Dataset {
	t.Helper()
	return colours(t, rand.New(rand.NewPCG(2, 3)), 8, n)
}

func microTrainer(t testing.TB, c *classifier.Classifier, batch, micro int, momentum float32) *train.Trainer {
	t.Helper()
	p := unit(t, c)
	o := train.StepOptions{Batch: batch, Micro: micro, Scale: p.Scale, Shift: p.Shift, Feature: true, Momentum: momentum, WeightDecay: 5e-4}
	tr, err := train.NewTrainer(c, o, ort.Options{Provider: ort.CPU, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// TestMicroBatches: without BatchNormalization, steps in micro-batches are those of the whole batch.
func TestMicroBatches(t *testing.T) {
	c := plainNet(t)
	d := plainData(t, 96)
	targets := make([]float32, 96*c.FeatureWidth)
	for i := range targets {
		targets[i] = float32(i%7) / 7
	}
	plan := train.Plan{Steps: 6, GrindSteps: 3, Rate: 0.1, AlphaGrind: 0.8, AlphaRestore: 0.2}
	whole := microTrainer(t, c, 48, 0, 0.9)
	want, err := fit(t.Context(), t, whole, c, d, targets, plan, 48, 2, nothing)
	if err != nil {
		t.Fatal(err)
	}
	for _, micro := range []int{24, 16, 3} {
		tr := microTrainer(t, c, 48, micro, 0.9)
		got, err := fit(t.Context(), t, tr, c, d, targets, plan, 48, 2, nothing)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			a, b := []float64{got[i].Loss, got[i].Feature, got[i].Task, got[i].Accuracy}, []float64{want[i].Loss, want[i].Feature, want[i].Task, want[i].Accuracy}
			if d := difference(a, b); d > 1e-5 {
				t.Errorf("micro-batches of %d: step %d gives %v, the whole batch %v", micro, i, a, b)
			}
		}
		for name, v := range whole.Values() {
			if d := difference(tr.Values()[name], v); d > 1e-4 {
				t.Errorf("micro-batches of %d: %s differs by %.2g of the largest", micro, name, d)
			}
		}
	}
}

// TestMicroBatchNormalization: with BatchNormalization a step moves by the mean of what each micro-batch, normalized by itself, would move it, and
// the running statistics move once for each.
func TestMicroBatchNormalization(t *testing.T) {
	c := smallNet(t)
	const batch, micro = 12, 4
	d := smallData(t, batch)
	targets := make([]float32, batch*c.FeatureWidth)
	plan := train.Plan{Steps: 1, GrindSteps: 1, Rate: 0.1, AlphaGrind: 0.5}
	parts := microTrainer(t, c, batch, micro, 0)
	start := parts.Values()
	if _, err := fit(t.Context(), t, parts, c, d, targets, plan, batch, 1, nothing); err != nil {
		t.Fatal(err)
	}
	got := parts.Values()

	feed := data.NewFeeder(t.Context(), d, unit(t, c), data.FeedOptions{Batch: batch, Steps: 1, Seed: 3})
	defer feed.Close()
	chunk, err := feed.Next()
	if err != nil {
		t.Fatal(err)
	}
	one := microTrainer(t, c, micro, 0, 0)
	statistics := []string{"norm1.mean", "norm1.variance", "norm2.mean", "norm2.variance"}
	want := map[string][]float32{}
	for name, v := range start {
		want[name] = slices.Clone(v)
	}
	for k := range batch / micro {
		begin := train.Values(c)
		for _, name := range statistics {
			begin[name] = want[name]
		}
		if err := one.Reset(begin); err != nil {
			t.Fatal(err)
		}
		pixels, labels := make([]byte, 0, micro*48), make([]int32, 0, micro)
		for _, row := range chunk.Index[k*micro : (k+1)*micro] {
			px, label := d.At(int(row))
			pixels, labels = append(pixels, px...), append(labels, int32(label))
		}
		part, err := data.New("part", d.Classes, 4, 4, 3, pixels, labels)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fit(t.Context(), t, one, c, part, targets, plan, micro, 1, nothing); err != nil {
			t.Fatal(err)
		}
		for name, v := range one.Values() {
			if slices.Contains(statistics, name) {
				want[name] = v
				continue
			}
			for i := range v {
				want[name][i] += (v[i] - start[name][i]) * micro / batch
			}
		}
	}
	for name, v := range want {
		if d := difference(got[name], v); d > 1e-5 {
			t.Errorf("%s differs by %.2g of the largest", name, d)
		}
	}
}

func TestMicroBatchesRefused(t *testing.T) {
	c := smallNet(t)
	for _, micro := range []int{1, 5, 24, -2} {
		if _, err := train.NewTrainer(c, train.StepOptions{Batch: 12, Micro: micro, Scale: make([]float32, 3), Shift: make([]float32, 3)}, ort.Options{Provider: ort.CPU}); !errors.Is(err, train.ErrMicroBatch) {
			t.Errorf("micro-batches of %d: %v", micro, err)
		}
	}
}

// TestOutOfMemory: an allocation that really fails halves the micro-batch, and training goes on as if it had begun with that.
func TestOutOfMemory(t *testing.T) {
	c := plainNet(t)
	d := plainData(t, 512)
	targets := make([]float32, 512*c.FeatureWidth)
	plan := train.Plan{Steps: 3, Rate: 0.1, AlphaRestore: 0.5}
	p := unit(t, c)
	o := train.StepOptions{Batch: 512, Scale: p.Scale, Shift: p.Shift, Feature: true, Momentum: 0.9}
	need, err := train.StepMemory(c, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := ort.LimitMemory(need / 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ort.LimitMemory(0) })
	var told []int
	o.Split = func(micro int, why error) {
		if !errors.Is(why, ort.ErrMemory) {
			t.Errorf("split because of %v", why)
		}
		told = append(told, micro)
	}
	tr, err := train.NewTrainer(c, o, ort.Options{Provider: ort.CPU, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if _, err := fit(t.Context(), t, tr, c, d, targets, plan, 512, 1, nothing); err != nil {
		t.Fatal(err)
	}
	if len(told) == 0 || told[0] != 256 || tr.Micro() != told[len(told)-1] {
		t.Errorf("told of %v, at the end micro-batches of %d", told, tr.Micro())
	}
	ort.LimitMemory(0)
	want := microTrainer(t, c, 512, tr.Micro(), 0.9)
	if _, err := fit(t.Context(), t, want, c, d, targets, plan, 512, 1, nothing); err != nil {
		t.Fatal(err)
	}
	for name, v := range want.Values() {
		if d := difference(tr.Values()[name], v); d > 1e-3 {
			t.Errorf("%s differs by %.2g of the largest", name, d)
		}
	}

	// 509 images cannot be split.
	if err := ort.LimitMemory(need / 2); err != nil {
		t.Fatal(err)
	}
	o.Batch = 509
	small, err := train.NewTrainer(c, o, ort.Options{Provider: ort.CPU, Threads: 1})
	if err == nil {
		defer small.Close()
		_, err = fit(t.Context(), t, small, c, d, targets, plan, 509, 1, nothing)
	}
	if !errors.Is(err, ort.ErrMemory) || !strings.Contains(err.Error(), "cannot be split") {
		t.Errorf("a prime batch: %v", err)
	}
}

// TestShrinkAgain: what was learnt outlives a failing try to go on with smaller micro-batches.
func TestShrinkAgain(t *testing.T) {
	c := plainNet(t)
	tr := microTrainer(t, c, 48, 0, 0.9)
	if _, err := fit(t.Context(), t, tr, c, plainData(t, 96), make([]float32, 96*c.FeatureWidth), train.Plan{Steps: 2, Rate: 0.1}, 48, 1, nothing); err != nil {
		t.Fatal(err)
	}
	want := tr.Values()
	if err := train.Shrink(tr, 5); !errors.Is(err, train.ErrMicroBatch) {
		t.Fatalf("5 of 48 images: %v", err)
	}
	if err := train.Shrink(tr, 16); err != nil {
		t.Fatal(err)
	}
	for name, v := range tr.Values() {
		if !slices.Equal(v, want[name]) {
			t.Errorf("%s is not what it was", name)
		}
	}
}
