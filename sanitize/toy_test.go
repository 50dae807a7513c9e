package sanitize

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/train"
)

// The toy is a model and a dataset made on the spot: 8x8 images of three kinds of stripes, and a convolutional network that this
// package's own engine has taught to tell them apart. With it, whole runs take moments and need no reference material.
var toy = struct {
	sync.Once
	images *data.Dataset
	model  []byte
}{}

const toySide = 8

// toyImages are n noisy images: horizontal, vertical or diagonal stripes.
func toyImages(n int, seed uint64) (*data.Dataset, error) {
	random := rand.New(rand.NewPCG(seed, 8))
	pixels, labels := make([]byte, 0, n*toySide*toySide*3), make([]int32, n)
	for i := range n {
		labels[i] = int32(i % 3)
		phase := random.IntN(4)
		for y := range toySide {
			for x := range toySide {
				along := [3]int{y, x, x + y}[labels[i]]
				for range 3 {
					pixels = append(pixels, byte(random.IntN(96)+((along+phase)/2%2)*150))
				}
			}
		}
	}
	return data.New("stripes", []string{"a-horizontal", "b-vertical", "c-diagonal"}, toySide, toySide, 3, pixels, labels)
}

// toyNet is the network, with random weights. Its second convolution has a bias and no BatchNormalization.
func toyNet() *onnx.Model {
	random := rand.New(rand.NewPCG(4, 4))
	b := onnx.NewBuilder()
	weight := func(name string, scale float64, shape ...int64) string {
		size := int64(1)
		for _, d := range shape {
			size *= d
		}
		v := make([]float32, size)
		for i := range v {
			v[i] = float32(scale * random.NormFloat64())
		}
		return b.Const(onnx.NewFloat(name, shape, v))
	}
	fill := func(name string, v float32) string {
		values := make([]float32, 8)
		for i := range values {
			values[i] = v
		}
		return b.Const(onnx.NewFloat(name, []int64{8}, values))
	}
	b.Input("image", onnx.Float, -1, 3, toySide, toySide)
	y := b.Op("Conv", []string{"image", weight("conv1.w", .3, 8, 3, 3, 3)}, onnx.Is("pads", 1, 1, 1, 1))
	y = b.Op("BatchNormalization", []string{y, fill("norm.scale", 1), fill("norm.shift", 0), fill("norm.mean", 0), fill("norm.variance", 1)})
	y = b.Op("Relu", []string{y})
	y = b.Op("Conv", []string{y, weight("conv2.w", .2, 12, 8, 3, 3), weight("conv2.b", .1, 12)}, onnx.Is("strides", 2, 2))
	y = b.Op("Relu", []string{y})
	b.Named("feature", "Flatten", []string{b.Op("GlobalAveragePool", []string{y})})
	b.Named("logits", "Gemm", []string{"feature", weight("head.w", .3, 3, 12), weight("head.b", .1, 3)}, onnx.I("transB", 1))
	b.Output("probabilities", onnx.Float, -1, 3)
	b.Named("probabilities", "Softmax", []string{"logits"}, onnx.I("axis", 1))
	m := b.Model(13)
	m.ProducerName, m.Doc, m.Metadata = "toymaker", "stripes", map[string]string{"author": "somebody", "licence": "any"}
	return m
}

// makeToy trains the network.
func makeToy(t testing.TB) {
	t.Helper()
	d, err := toyImages(600, 1)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := toyNet().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := classifier.New(m, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := unitOf(t, toySide)
	tr, err := train.NewTrainer(c, train.StepOptions{Batch: 32, Scale: p.Scale, Shift: p.Shift, Momentum: .9}, cpu)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	plan := train.Plan{Steps: 200, Rate: .05}
	feed := data.NewFeeder(t.Context(), d, p, data.FeedOptions{Batch: 32, StepsPerChunk: 20, Steps: plan.Steps})
	defer feed.Close()
	if err := tr.Run(t.Context(), feed, nil, plan, func([]train.Metrics) {}); err != nil {
		t.Fatal(err)
	}
	weights := map[string]*onnx.Tensor{}
	for name, v := range tr.Values() {
		weights[name] = onnx.NewFloat(name, c.Constants[name].Shape, v)
	}
	if toy.model, err = m.Rewrite(weights); err != nil {
		t.Fatal(err)
	}
	toy.images = d
}

// toyOptions are those of a short run on the toy: its model and images lie in a folder of their own.
func toyOptions(t testing.TB) Options {
	t.Helper()
	toy.Do(func() { makeToy(t) })
	if toy.model == nil {
		t.Fatal("the toy could not be made")
	}
	dir := t.TempDir()
	var archive bytes.Buffer
	if err := toy.images.WriteTarGz(&archive); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Model: filepath.Join(dir, "toy.onnx"), Data: filepath.Join(dir, "stripes.tar.gz"), Output: filepath.Join(dir, "out.onnx"),
		HoldOut: .2, Steps: new(80), Batch: 32, LearningRate: .05, NoAugment: true, Preprocess: "unit", Provider: cpu.Provider, Threads: 1,
	}
	if err := os.WriteFile(o.Model, toy.model, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Data, archive.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return o
}

func unitOf(t testing.TB, side int) data.Preprocess {
	t.Helper()
	p, err := data.Named("unit", data.NCHW, side, side, 3)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// toyTwice sanitizes the toy two times by the same settings.
func toyTwice(t *testing.T) (a, b *Report) {
	t.Helper()
	var reports [2]*Report
	for i := range reports {
		o := toyOptions(t)
		o.Seed, o.Transformation = 3, Rotate
		r, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		reports[i] = r
	}
	return reports[0], reports[1]
}
