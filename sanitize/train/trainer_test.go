package train_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

func trainer(t testing.TB, c *classifier.Classifier, batch int, feature bool) *train.Trainer {
	t.Helper()
	p := unit(t, c)
	o := train.StepOptions{Batch: batch, Scale: p.Scale, Shift: p.Shift, Feature: feature, Momentum: 0.9, WeightDecay: 5e-4}
	tr, err := train.NewTrainer(c, o, ort.Options{Provider: ort.CPU, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// fit runs a plan over a dataset and returns the metrics of every step.
func fit(ctx context.Context, t testing.TB, tr *train.Trainer, c *classifier.Classifier, d *data.Dataset, targets []float32, plan train.Plan, batch, chunk int, each func()) ([]train.Metrics, error) {
	t.Helper()
	feed := data.NewFeeder(ctx, d, unit(t, c), data.FeedOptions{Batch: batch, StepsPerChunk: chunk, Steps: plan.Steps, Seed: 3})
	defer feed.Close()
	var all []train.Metrics
	err := tr.Run(ctx, feed, targets, plan, func(ms []train.Metrics) {
		all = append(all, ms...)
		each()
	})
	return all, err
}

func nothing() {}

// TestTraining: some steps learn a task that a small network can learn, whatever the chunks, and a reset goes back to the start.
func TestTraining(t *testing.T) {
	c := smallNet(t)
	d := smallData(t, 90)
	targets := make([]float32, 90*c.FeatureWidth)
	for i := range targets { // each class has features of its own
		if i%c.FeatureWidth%3 == int(d.Labels[i/c.FeatureWidth]) {
			targets[i] = 1
		}
	}
	plan := train.Plan{Steps: 100, GrindSteps: 60, Rate: 0.1, AlphaGrind: 0.8, AlphaRestore: 0.2}
	tr := trainer(t, c, 15, true)
	start := tr.Values()
	want, err := fit(t.Context(), t, tr, c, d, targets, plan, 15, 1, nothing)
	if err != nil {
		t.Fatal(err)
	}
	trained := tr.Values()
	if len(want) != plan.Steps {
		t.Fatalf("metrics of %d steps", len(want))
	}
	for i, m := range want {
		alpha := plan.AlphaAt(i)
		if m.Step != i || math.Abs(m.Loss-alpha*m.Feature-(1-alpha)*m.Task) > 1e-5*m.Loss {
			t.Errorf("step %d: %+v", i, m)
		}
	}
	mean := func(ms []train.Metrics, value func(train.Metrics) float64) (sum float64) {
		for _, m := range ms {
			sum += value(m) / float64(len(ms))
		}
		return sum
	}
	right := mean(want[90:], func(m train.Metrics) float64 { return m.Accuracy })
	feature := func(m train.Metrics) float64 { return m.Feature }
	first, last := mean(want[:6], feature), mean(want[54:60], feature)
	if right < 0.9 || last > 0.7*first {
		t.Errorf("accuracy %.2f at the end; feature distance %.3f at first, %.3f after grinding", right, first, last)
	}
	for name, v := range start {
		if !slices.Equal(v, c.Constants[name].Floats()) {
			t.Errorf("%s did not start as in the model", name)
		}
		moved := !slices.Equal(v, trained[name])
		if !moved {
			t.Errorf("%s has not moved: it is a weight or a running statistic", name)
		}
	}

	for _, chunk := range []int{7, 100} {
		if err := tr.Reset(start); err != nil {
			t.Fatal(err)
		}
		got, err := fit(t.Context(), t, tr, c, d, targets, plan, 15, chunk, nothing)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if math.Abs(got[i].Loss-want[i].Loss) > 1e-4*want[i].Loss {
				t.Fatalf("chunks of %d: loss %v at step %d, one by one %v", chunk, got[i].Loss, i, want[i].Loss)
			}
		}
		for name, v := range tr.Values() {
			if d := difference(v, trained[name]); d > 1e-3 {
				t.Errorf("chunks of %d: %s differs by %.2g of the largest", chunk, name, d)
			}
		}
	}
}

// TestTargetsFollowTheirImages: the row of targets that a batch is compared with is its image's own, through every shuffle.
func TestTargetsFollowTheirImages(t *testing.T) {
	c := smallNet(t)
	const n, batch, steps, far = 12, 4, 9, 1e4
	d := smallData(t, n)
	const marked = 7
	targets := make([]float32, n*c.FeatureWidth)
	targets[marked*c.FeatureWidth] = far
	got, err := fit(t.Context(), t, trainer(t, c, batch, true), c, d, targets, train.Plan{Steps: steps}, batch, 2, nothing)
	if err != nil {
		t.Fatal(err)
	}
	feed := data.NewFeeder(t.Context(), d, unit(t, c), data.FeedOptions{Batch: batch, StepsPerChunk: steps, Steps: steps, Seed: 3})
	defer feed.Close()
	chunk, err := feed.Next()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i, m := range got {
		here := slices.Contains(chunk.Index[i*batch:(i+1)*batch], marked)
		if here {
			seen++
		}
		if (m.Feature > far/batch/2) != here {
			t.Errorf("step %d: feature distance %.1f, marked image in the batch: %v", i, m.Feature, here)
		}
	}
	if seen != steps*batch/n {
		t.Errorf("the marked image came %d times in %d epochs", seen, steps*batch/n)
	}
}

func TestDivergence(t *testing.T) {
	c := smallNet(t)
	tr := trainer(t, c, 6, false)
	_, err := fit(t.Context(), t, tr, c, smallData(t, 30), nil, train.Plan{Steps: 30, Rate: 1e20}, 6, 5, nothing)
	if !errors.Is(err, train.ErrDiverged) {
		t.Fatalf("error %v", err)
	}
	// A trainer survives it: the search for a rate goes on with the next one.
	if err := tr.Reset(train.Values(c)); err != nil {
		t.Fatal(err)
	}
	if _, err := fit(t.Context(), t, tr, c, smallData(t, 30), nil, train.Plan{Steps: 10, Rate: 0.01}, 6, 5, nothing); err != nil {
		t.Error(err)
	}
}

func TestCancellation(t *testing.T) {
	c := smallNet(t)
	tr := trainer(t, c, 6, false)
	ctx, cancel := context.WithCancel(t.Context())
	got, err := fit(ctx, t, tr, c, smallData(t, 30), nil, train.Plan{Steps: 100000, Rate: 0.01}, 6, 5, cancel)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(got) > 15 { // the chunk that was under way, and one that was ready
		t.Errorf("%d steps after the interruption", len(got))
	}
}

func TestPlan(t *testing.T) {
	p := train.Plan{Steps: 100, GrindSteps: 40, Rate: 0.1, AlphaGrind: 0.8, AlphaRestore: 0.2}
	for step, want := range map[int]float64{0: 0.1, 25: 0.05 * (1 + math.Sqrt2/2), 50: 0.05, 75: 0.05 * (1 - math.Sqrt2/2), 100: 0} {
		if got := p.RateAt(step); math.Abs(got-want) > 1e-12 {
			t.Errorf("rate at step %d: %v, want %v", step, got, want)
		}
	}
	for step, want := range map[int]float64{0: 0.8, 39: 0.8, 40: 0.2, 99: 0.2} {
		if got := p.AlphaAt(step); got != want {
			t.Errorf("alpha at step %d: %v, want %v", step, got, want)
		}
	}
}

// TestResetRefuses: weights that do not fit are an error, not a crash or a silent zero.
func TestResetRefuses(t *testing.T) {
	c := smallNet(t)
	tr := trainer(t, c, 6, false)
	for _, name := range []string{"fc2.b", "norm1.mean"} {
		values := train.Values(c)
		values[name] = values[name][1:]
		if err := tr.Reset(values); err == nil {
			t.Errorf("%s: too short, but taken", name)
		}
		delete(values, name)
		if err := tr.Reset(values); err == nil {
			t.Errorf("%s: missing, but taken", name)
		}
	}
}

// TestWithoutBatchNormalization: the running statistics are a placeholder then, which must not leak into the weights.
func TestWithoutBatchNormalization(t *testing.T) {
	c := openShared(t, "vnncomp-cifar_base_kw.onnx")
	values := trainer(t, c, 2, false).Values()
	for name := range values {
		if c.Constants[name] == nil {
			t.Errorf("value %q is none of the model's", name)
		}
	}
	if len(values) < len(c.Trainable) {
		t.Errorf("%d values", len(values))
	}
}

// TestForward: logits from bytes are those from floats, and values replace weights.
func TestForward(t *testing.T) {
	for _, file := range []string{"nad-wrn16-badnet.onnx", "vnncomp-cifar10_medium_nhwc.onnx"} {
		c := openShared(t, file)
		p, err := data.Named("cifar10-bgr", data.Layout(c.Layout), 32, 32, 3)
		if err != nil {
			t.Fatal(err)
		}
		f, err := train.NewForward(c, p.Scale, p.Shift, nil, []string{c.Logits, c.Feature}, ort.Options{Provider: ort.CPU})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		const n, per = 3, 32 * 32 * 3
		packed, x := make([]byte, n*per), &ort.Array{Shape: c.ImageShape(n), F32: make([]float32, n*per)}
		for i := range n {
			px := make([]byte, per)
			for k := range px {
				px[k] = byte(k*7 + i*31)
			}
			p.Pack(packed[i*per:(i+1)*per], px)
			p.Float(x.F32[i*per:(i+1)*per], px)
		}
		got, err := f.Run(t.Context(), packed)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got[1].Shape, []int64{n, int64(c.FeatureWidth)}) {
			t.Errorf("%s: features %v", file, got[1].Shape)
		}
		want := logits(t, c, x)
		if d := difference(got[0].F32, want); d > 1e-4 {
			t.Errorf("%s: logits differ by %.2g of the largest", file, d)
		}

		values := map[string][]float32{}
		for _, name := range c.HeadWeights {
			values[name] = make([]float32, c.Constants[name].Len())
		}
		zero, err := train.NewForward(c, p.Scale, p.Shift, values, []string{c.Logits}, ort.Options{Provider: ort.CPU})
		if err != nil {
			t.Fatal(err)
		}
		defer zero.Close()
		if got, err = zero.Run(t.Context(), packed); err != nil || slices.Max(got[0].F32) != 0 || slices.Min(got[0].F32) != 0 {
			t.Errorf("%s: with a head of zeros the logits are %v (%v)", file, got[0].F32, err)
		}
		if _, err := f.Run(t.Context(), packed[1:]); err == nil {
			t.Errorf("%s: a part of an image was taken", file)
		}
	}
}

// logits runs the classifier's graph on floats.
func logits(t testing.TB, c *classifier.Classifier, x *ort.Array) []float32 {
	t.Helper()
	b := c.NewBuilder()
	b.Input(c.Input, onnx.Float, c.ImageShape(-1)...)
	c.EmitConstants(b)
	for _, n := range c.Nodes {
		b.Add(n)
	}
	b.Output(c.Logits, onnx.Float, -1, int64(c.Classes))
	raw, err := b.Model(onnx.Opset).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.NewSession(raw, ort.Options{Provider: ort.CPU})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := make([]*ort.Array, 1)
	if err := s.Run(t.Context(), []*ort.Array{x}, out); err != nil {
		t.Fatal(err)
	}
	return out[0].F32
}

// TestTrainThenFold: a network with unfolded layers, trained for real, gives the same logits as the original graph with folded weights.
func TestTrainThenFold(t *testing.T) {
	c := openShared(t, "vnncomp-resnet_2b.onnx")
	original := openShared(t, "vnncomp-resnet_2b.onnx")
	layers := c.Foldable()
	mean, variance := make([][]float32, len(layers)), make([][]float32, len(layers))
	for i, l := range layers {
		mean[i], variance[i] = make([]float32, l.Channels), make([]float32, l.Channels)
		for k := range variance[i] {
			variance[i][k] = 1
		}
	}
	c.Unfold(layers, mean, variance)
	const batch, size = 16, 32 * 32 * 3
	pixels, labels := make([]byte, 64*size), make([]int32, 64)
	for i := range pixels {
		pixels[i] = byte(i * i / 13)
	}
	for i := range labels {
		labels[i] = int32(i % 10)
	}
	classes := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	d, err := data.New("stripes", classes, 32, 32, 3, pixels, labels)
	if err != nil {
		t.Fatal(err)
	}
	tr := trainer(t, c, batch, false)
	if _, err := fit(t.Context(), t, tr, c, d, nil, train.Plan{Steps: 12, Rate: 0.02}, batch, 4, nothing); err != nil {
		t.Fatal(err)
	}
	p := unit(t, c)
	evaluate := func(c *classifier.Classifier, values map[string][]float32) []float32 {
		f, err := train.NewForward(c, p.Scale, p.Shift, values, []string{c.Logits}, ort.Options{Provider: ort.CPU})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		packed := make([]byte, 8*size)
		for i := range 8 {
			px, _ := d.At(i)
			p.Pack(packed[i*size:(i+1)*size], px)
		}
		out, err := f.Run(t.Context(), packed)
		if err != nil {
			t.Fatal(err)
		}
		return out[0].F32
	}
	values := tr.Values()
	want := evaluate(c, values)
	if difference(evaluate(original, nil), want) < 0.01 {
		t.Error("training changed too little to tell anything")
	}
	c.Fold(values)
	if d := difference(evaluate(original, values), want); d > 1e-4 {
		t.Errorf("logits differ by %.2g of the largest", d)
	}
	for name := range values {
		if original.Constants[name] == nil {
			t.Errorf("%s is none of the original's", name)
		}
	}
}
