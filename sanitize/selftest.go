package sanitize

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// SelfTest does one training step of a small network on a provider and on the CPU, and compares the weights: an error says what is
// wrong with the provider.
func SelfTest(ctx context.Context, p ort.Provider) error {
	want, err := selfTestStep(ctx, ort.CPU)
	if err != nil {
		return fmt.Errorf("training step on the CPU: %w", err)
	}
	got, err := selfTestStep(ctx, p)
	if err != nil {
		return fmt.Errorf("training step: %w", err)
	}
	for name, w := range want {
		var off, norm float64
		for i, v := range w {
			d := float64(got[name][i] - v)
			off, norm = off+d*d, norm+float64(v)*float64(v)
		}
		if e := math.Sqrt(off / norm); !(e < 1e-2) { // TensorFloat-32 and half precision are in order, a wrong result is not
			return fmt.Errorf("training step: %s differs from the CPU's by %.2g of its norm", name, e)
		}
	}
	return nil
}

// selfTestStep returns the weights of the network after a step.
func selfTestStep(ctx context.Context, p ort.Provider) (map[string][]float32, error) {
	const side, channels, classes, batch = 8, 8, 4, 16
	random := rand.New(rand.NewPCG(1, 2))
	b := onnx.NewBuilder()
	weight := func(shape ...int64) string {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(random.Float64() - .3)
		}
		return b.Const(onnx.NewFloat(b.Fresh("weight"), shape, v))
	}
	b.Input("input", onnx.Float, -1, 3, side, side)
	x := b.Op("Conv", []string{"input", weight(channels, 3, 3, 3)}, onnx.Is("pads", 1, 1, 1, 1))
	ones := make([]float32, channels)
	for i := range ones {
		ones[i] = 1
	}
	x = b.Op("BatchNormalization", []string{x, b.Const(onnx.NewFloat("scale", []int64{channels}, ones)), weight(channels), weight(channels),
		b.Const(onnx.NewFloat("variance", []int64{channels}, ones))})
	x = b.Op("Flatten", []string{b.Op("GlobalAveragePool", []string{b.Op("Relu", []string{x})})})
	b.Named("logits", "Gemm", []string{x, weight(channels, classes), weight(classes)})
	b.Output("logits", onnx.Float, -1, classes)
	m := b.Model(onnx.Opset)
	if err := b.Err(); err != nil {
		return nil, err
	}
	c, err := classifier.New(m, classifier.Options{})
	if err != nil {
		return nil, err
	}
	pixels, labels := make([]byte, batch*side*side*3), make([]int32, batch)
	for i := range pixels {
		pixels[i] = byte(random.Uint32())
	}
	for i := range labels {
		labels[i] = int32(i % classes)
	}
	d, err := data.New("self-test", []string{"a", "b", "c", "d"}, side, side, 3, pixels, labels)
	if err != nil {
		return nil, err
	}
	pre, err := data.Named("unit", data.Layout(c.Layout), side, side, 3)
	if err != nil {
		return nil, err
	}
	t, err := train.NewTrainer(c, train.StepOptions{Batch: batch, Scale: pre.Scale, Shift: pre.Shift, Feature: true, Momentum: .9, WeightDecay: 5e-4}, ort.Options{Provider: p})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	feed := data.NewFeeder(ctx, d, pre, data.FeedOptions{Batch: batch, StepsPerChunk: 1, Steps: 1, Seed: 1})
	defer feed.Close()
	plan := train.Plan{Steps: 1, Rate: .1, AlphaGrind: .5, AlphaRestore: .5}
	if err := t.Run(ctx, feed, make([]float32, batch*c.FeatureWidth), plan, func([]train.Metrics) {}); err != nil {
		return nil, err
	}
	return t.Values(), nil
}
