package train_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// sketch is a classifier of 8x8 images with something done to the images, and something between its two convolutions.
func sketch(t *testing.T, before, between func(b *onnx.Builder, x string) string) (m *onnx.Model, raw []byte) {
	t.Helper()
	b := onnx.NewBuilder()
	weight := weights(b, rand.New(rand.NewPCG(3, 8)), 1./2)
	conv := func(x, name string, c, k int64) string {
		return b.Op("Conv", []string{x, weight(name+".w", k, c, 3, 3), weight(name+".b", k)}, onnx.Is("pads", 1, 1, 1, 1))
	}
	b.Input("x", onnx.Float, -1, 3, 8, 8)
	y := between(b, b.Op("Relu", []string{conv(before(b, "x"), "conv1", 3, 4)}))
	y = b.Op("Relu", []string{conv(y, "conv2", 4, 4)})
	y = b.Op("ReduceMean", []string{y}, onnx.Is("axes", 2, 3), onnx.I("keepdims", 0))
	b.Output(b.Op("Gemm", []string{y, weight("fc.w", 4, 3)}), onnx.Float, -1, 3)
	raw, err := b.Model(17).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = onnx.Parse(raw); err != nil {
		t.Fatal(err)
	}
	return m, raw
}

func same(_ *onnx.Builder, x string) string { return x }

func gelu(b *onnx.Builder, x string) string {
	b.Add(&onnx.Node{Name: "gelu", Op: "Gelu", Domain: onnx.Contrib, Inputs: []string{x}, Outputs: []string{"bent"}})
	return "bent"
}

// branches takes the mean of the images off unless they are dark. Its bodies read the images, a constant and what was computed.
func branches(b *onnx.Builder, x string) string {
	mean := b.Op("ReduceMean", []string{x}, onnx.Is("axes", 2, 3))
	half := b.Const(onnx.NewFloat("half", nil, []float32{0.5}))
	body := func(op, by string) *onnx.Graph {
		c := b.Child()
		c.Output(c.Op(op, []string{x, by}), onnx.Float, -1, 3, 8, 8)
		return c.Graph(op)
	}
	dark := b.Op("Less", []string{b.Op("ReduceMax", []string{x}, onnx.I("keepdims", 0)), half})
	return b.Op("If", []string{dark}, onnx.G("then_branch", body("Mul", half)), onnx.G("else_branch", body("Sub", mean)))
}

// TestNodesOffThePath: what no gradient passes is emitted as it is, with its operator set and all that its subgraphs read.
func TestNodesOffThePath(t *testing.T) {
	for name, test := range map[string]struct {
		before, between func(b *onnx.Builder, x string) string
		freeze          []string
	}{
		"own operator before the first layer": {gelu, same, nil},
		"own operator, frozen":                {same, gelu, []string{"gelu"}},
		"branches before the first layer":     {branches, same, nil},
	} {
		for _, plain := range []bool{true, false} {
			m, raw := sketch(t, test.before, test.between)
			c, err := classifier.New(m, classifier.Options{FreezeBelow: test.freeze})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			const n = 16
			random := rand.New(rand.NewPCG(1, 1))
			images := &ort.Array{Shape: c.ImageShape(n), F32: make([]float32, n*3*8*8)}
			for i := range images.F32 {
				images.F32[i] = random.Float32()
			}
			want := 0.0 // cross entropy with the first class
			logits := runOnce(t, raw, 1, images)[0].F32
			for i := range n {
				sum := 0.0
				for _, v := range logits[i*3:][:3] {
					sum += math.Exp(float64(v))
				}
				want += (math.Log(sum) - float64(logits[i*3])) / n
			}
			g, err := train.BuildGraph(c, train.StepOptions{Batch: n, Momentum: 0.9, PlainLayout: plain})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if raw, err = g.Marshal(); err != nil {
				t.Fatal(err)
			}
			out := runOnce(t, raw, len(g.Graph.Outputs), images, &ort.Array{Shape: []int64{n}, I64: make([]int64, n)}, &ort.Array{Shape: []int64{n, 4}, F32: make([]float32, n*4)},
				&ort.Array{Shape: []int64{1}, F32: []float32{0}}, &ort.Array{Shape: []int64{1}, F32: []float32{0.1}})
			if got := float64(out[0].F32[0]); math.Abs(got-want) > 1e-5 {
				t.Errorf("%s: loss %v, want %v", name, got, want)
			}
		}
	}
}

func runOnce(t *testing.T, model []byte, outputs int, in ...*ort.Array) []*ort.Array {
	t.Helper()
	s, err := ort.NewSession(model, ort.Options{Provider: ort.CPU})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := make([]*ort.Array, outputs)
	if err := s.Run(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLayersWithinBranches would not be trained: the model is refused.
func TestLayersWithinBranches(t *testing.T) {
	m, _ := sketch(t, func(b *onnx.Builder, x string) string {
		mix := b.Const(onnx.NewFloat("mix", []int64{3, 3, 1, 1}, make([]float32, 9)))
		body := func(op string, in ...string) *onnx.Graph {
			c := b.Child()
			c.Output(c.Op(op, in), onnx.Float, -1, 3, 8, 8)
			return c.Graph(op)
		}
		dark := b.Op("Less", []string{b.Op("ReduceMax", []string{x}, onnx.I("keepdims", 0)), b.Float(0.5)})
		return b.Op("If", []string{dark}, onnx.G("then_branch", body("Conv", x, mix)), onnx.G("else_branch", body("Identity", x)))
	}, same)
	c, err := classifier.New(m, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckTrainable(); !errors.Is(err, classifier.ErrWithin) {
		t.Errorf("error %v", err)
	}
}
