package train_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// weights returns what adds a tensor of normally distributed numbers to a model.
func weights(b *onnx.Builder, random *rand.Rand, deviation float64) func(name string, shape ...int64) string {
	return func(name string, shape ...int64) string {
		size := int64(1)
		for _, d := range shape {
			size *= d
		}
		v := make([]float32, size)
		for i := range v {
			v[i] = float32(random.NormFloat64() * deviation)
		}
		return b.Const(onnx.NewFloat(name, shape, v))
	}
}

// smallNet is a classifier of 4x4 RGB images with everything that a step treats in a way of its own: a BatchNormalization over images
// and one over rows, with different momenta, layers with and without bias, pooling, and a head. Its weights are random.
func smallNet(t testing.TB) *classifier.Classifier {
	t.Helper()
	random := rand.New(rand.NewPCG(11, 4))
	b := onnx.NewBuilder()
	weight := weights(b, random, 1./2)
	norm := func(name, x string, channels int64, momentum float32) string {
		positive := make([]float32, channels)
		for i := range positive {
			positive[i] = 0.5 + random.Float32()
		}
		variance := b.Const(onnx.NewFloat(name+".variance", []int64{channels}, positive))
		in := []string{x, weight(name+".scale", channels), weight(name+".shift", channels), weight(name+".mean", channels), variance}
		return b.Op("BatchNormalization", in, onnx.F("momentum", momentum))
	}
	b.Input("x", onnx.Float, -1, 3, 4, 4)
	y := b.Op("Conv", []string{"x", weight("conv1.w", 4, 3, 3, 3)}, onnx.Is("pads", 1, 1, 1, 1))
	y = b.Op("Relu", []string{norm("norm1", y, 4, 0.75)})
	y = b.Op("MaxPool", []string{y}, onnx.Is("kernel_shape", 2, 2), onnx.Is("strides", 2, 2))
	y = b.Op("Relu", []string{b.Op("Conv", []string{y, weight("conv2.w", 5, 4, 1, 1), weight("conv2.b", 5)})})
	y = b.Op("Flatten", []string{y})
	y = b.Op("Gemm", []string{y, weight("fc1.w", 20, 6), weight("fc1.b", 6)})
	b.Named("feature", "Relu", []string{norm("norm2", y, 6, 0.5)})
	b.Named("logits", "Gemm", []string{"feature", weight("fc2.w", 3, 6), weight("fc2.b", 3)}, onnx.I("transB", 1))
	b.Output("logits", onnx.Float, -1, 3)
	return classify(t, b)
}

// smallData is a dataset of n random images for smallNet whose class is the brightest colour.
func smallData(t testing.TB, n int) *data.Dataset {
	t.Helper()
	return colours(t, rand.New(rand.NewPCG(2, 9)), 4, n)
}

// colours are n random images whose class is the brightest colour.
func colours(t testing.TB, random *rand.Rand, side, n int) *data.Dataset {
	t.Helper()
	per := 3 * side * side
	pixels, labels := make([]byte, n*per), make([]int32, n)
	for i := range n {
		labels[i] = int32(i % 3)
		for k := range per {
			v := random.IntN(160)
			if k%3 == i%3 {
				v += 95
			}
			pixels[i*per+k] = byte(v)
		}
	}
	d, err := data.New("colours", []string{"red", "green", "blue"}, side, side, 3, pixels, labels)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func unit(t testing.TB, c *classifier.Classifier) data.Preprocess {
	t.Helper()
	p, err := data.Named("unit", data.Layout(c.Layout), c.Height, c.Width, c.Channels)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func openShared(t testing.TB, file string) *classifier.Classifier {
	t.Helper()
	m, err := onnx.ReadFile(shared.Path(t, "models", file))
	if err != nil {
		t.Fatal(err)
	}
	c, err := classifier.New(m, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// batchOf makes inputs of k steps of a step's graph, in the order that Step documents: random images and targets, labels in turn, and
// the given alphas and rates.
func batchOf(t testing.TB, c *classifier.Classifier, s *train.Step, batch int, alpha, rate []float32) []*ort.Array {
	t.Helper()
	random := rand.New(rand.NewPCG(21, 1))
	k, n := int64(len(alpha)), int64(batch)
	image := c.ImageShape(n)
	values := train.Values(c)
	flat := func(slots []train.Slot) *ort.Array {
		last := slots[len(slots)-1]
		a := &ort.Array{Shape: []int64{int64(last.Offset + last.Size)}, F32: make([]float32, last.Offset+last.Size)}
		if err := train.Fill(a.F32, slots, values); err != nil {
			t.Fatal(err)
		}
		return a
	}
	parameters := flat(s.Parameters)
	images := make([]byte, k*image[0]*image[1]*image[2]*image[3])
	for i := range images {
		images[i] = byte(random.IntN(256))
	}
	labels := make([]int64, k*n)
	for i := range labels {
		labels[i] = int64(i) % int64(c.Classes)
	}
	targets := make([]float32, k*n*int64(c.FeatureWidth))
	for i := range targets {
		targets[i] = random.Float32()
	}
	return []*ort.Array{
		parameters,
		{Shape: parameters.Shape, F32: make([]float32, len(parameters.F32))},
		flat(s.Statistics),
		{Shape: append([]int64{k}, image...), U8: images},
		{Shape: []int64{k, n}, I64: labels},
		{Shape: []int64{k, n, int64(c.FeatureWidth)}, F32: targets},
		{Shape: []int64{k, 1}, F32: alpha},
		{Shape: []int64{k, 1}, F32: rate},
	}
}

// session prepares a step's graph for running.
func session(t testing.TB, s *train.Step) *ort.Session {
	t.Helper()
	raw, err := s.Model.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	session, err := ort.NewSession(raw, ort.Options{Provider: ort.CPU})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// run returns parameters, momentum, statistics and metrics.
func run(t testing.TB, s *ort.Session, in []*ort.Array) [4][]float32 {
	t.Helper()
	out := make([]*ort.Array, 4)
	if err := s.Run(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	return [4][]float32{out[0].F32, out[1].F32, out[2].F32, out[3].F32}
}

// difference is the largest difference of two vectors, relative to the largest element of b.
func difference[A, B float32 | float64](a []A, b []B) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	worst, scale := 0.0, 1e-9
	for i := range a {
		d := math.Abs(float64(a[i]) - float64(b[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		worst, scale = max(worst, d), max(scale, math.Abs(float64(b[i])))
	}
	return worst / scale
}

// classify reads a graph as a file is read.
func classify(t testing.TB, b *onnx.Builder) *classifier.Classifier {
	t.Helper()
	raw, err := b.Model(17).Marshal()
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
	return c
}
