package train_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// TestGraph runs the training step as a file of its own, whose state begins as the classifier's, and as the trainer runs it: one step at
// the same images ends in the same losses and the same state. Without momentum before it, and with g = gradient + decay*p, the step is
// p - rate*(1+momentum)*g, so the update tells the gradient as well.
func TestGraph(t *testing.T) {
	for name, plain := range map[string]bool{"plain layout": true, "fast layout": false} {
		t.Run(name, func(t *testing.T) {
			c := smallNet(t)
			o := train.StepOptions{Batch: 6, Scale: []float32{1. / 64, 1. / 128, 1. / 32}, Shift: []float32{-0.5, 0.25, 0}, Feature: true, Momentum: 0.875, WeightDecay: 1. / 64, PlainLayout: plain}
			s, err := train.BuildStep(c, o)
			if err != nil {
				t.Fatal(err)
			}
			in := batchOf(t, c, s, o.Batch, []float32{0.75}, []float32{0.125})
			clear(in[1].F32)
			if err := train.Fill(in[0].F32, s.Parameters, train.Values(c)); err != nil {
				t.Fatal(err)
			}
			if err := train.Fill(in[2].F32, s.Statistics, train.Values(c)); err != nil {
				t.Fatal(err)
			}
			want := run(t, session(t, s), in)

			m, err := train.BuildGraph(c, o)
			if err != nil {
				t.Fatal(err)
			}
			if m.Doc == "" {
				t.Error("no documentation")
			}
			raw, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			r, err := ort.NewSession(raw, ort.Options{Provider: ort.CPU})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			images := &ort.Array{Shape: c.ImageShape(int64(o.Batch)), F32: make([]float32, len(in[3].U8))}
			for i, v := range in[3].U8 {
				k := i / (c.Height * c.Width) % c.Channels
				images.F32[i] = float32(v)*o.Scale[k] + o.Shift[k]
			}
			feed := []*ort.Array{images}
			for _, a := range in[4:] {
				feed = append(feed, &ort.Array{Shape: a.Shape[1:], I64: a.I64, F32: a.F32})
			}
			out := make([]*ort.Array, len(m.Graph.Outputs))
			if err := r.Run(context.Background(), feed, out); err != nil {
				t.Fatal(err)
			}
			got := map[string][]float32{}
			for i, o := range m.Graph.Outputs {
				got[o.Name] = out[i].F32
			}
			for i, name := range []string{"loss", "feature_loss", "task_loss", "accuracy"} {
				if d := difference(got[name], want[3][i:i+1]); d > 1e-6 {
					t.Errorf("%s is %v, want %v", name, got[name], want[3][i])
				}
			}
			check := func(what string, got, want []float32) {
				if d := difference(got, want); d > 1e-5 {
					t.Errorf("%s: off by %.2g of the largest", what, d)
				}
			}
			for _, slot := range s.Parameters {
				check(slot.Name, got[slot.Name+"/next"], slotOf(slot, want[0]))
				check(slot.Name+"/momentum", got[slot.Name+"/momentum/next"], slotOf(slot, want[1]))
				before := c.Constants[slot.Name].Floats()
				step := make([]float32, slot.Size)
				for i, g := range got[slot.Name+"/gradient"] {
					step[i] = before[i] - in[7].F32[0]*(1+o.Momentum)*(g+o.WeightDecay*before[i])
				}
				check(slot.Name+"/gradient", step, got[slot.Name+"/next"])
			}
			for _, slot := range s.Statistics {
				check(slot.Name, got[slot.Name+"/next"], slotOf(slot, want[2]))
			}
		})
	}
}

// TestGraphBesideNamesOfTheModel: a weight may be called as the step's own inputs and outputs are; these give way, and the file says so.
func TestGraphBesideNamesOfTheModel(t *testing.T) {
	b := onnx.NewBuilder()
	weight := weights(b, rand.New(rand.NewPCG(4, 4)), 1./2)
	b.Input("images", onnx.Float, -1, 3, 4, 4)
	y := b.Op("Mul", []string{b.Op("Conv", []string{"images", weight("labels", 4, 3, 3, 3), weight("alpha", 4)}), weight("loss", 4, 1, 1)})
	y = b.Op("Flatten", []string{b.Op("GlobalAveragePool", []string{y})})
	b.Output(b.Op("Gemm", []string{y, weight("rate", 4, 3), weight("targets", 3)}), onnx.Float, -1, 3)
	c := classify(t, b)
	g, err := train.BuildGraph(c, train.StepOptions{Batch: 2, Feature: true, PlainLayout: true})
	if err != nil {
		t.Fatal(err)
	}
	if g.Graph.Inputs[0].Name != "images" {
		t.Errorf("the images are called %q; no weight is", g.Graph.Inputs[0].Name)
	}
	for _, name := range []string{"labels_1", "alpha_1", "targets_1", "rate_1", "loss_1"} {
		if notes := strings.Join(train.Renamed(g), "; "); !strings.Contains(notes, name) || !strings.Contains(g.Doc, "  "+name+" ") {
			t.Errorf("%s is not explained in %q, or not in the file:\n%s", name, notes, g.Doc)
		}
	}
	raw, err := g.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	runOnce(t, raw, len(g.Graph.Outputs), &ort.Array{Shape: c.ImageShape(2), F32: make([]float32, 96)}, &ort.Array{Shape: []int64{2}, I64: make([]int64, 2)},
		&ort.Array{Shape: []int64{2, 4}, F32: make([]float32, 8)}, &ort.Array{Shape: []int64{1}, F32: []float32{0.5}}, &ort.Array{Shape: []int64{1}, F32: []float32{0.1}})
}

// slotOf is a tensor in a flat vector; smallNet has no weights in another order.
func slotOf(s train.Slot, flat []float32) []float32 { return flat[s.Offset : s.Offset+s.Size] }

// TestSinglePosition: a map of one position is still an activation, in the layout of whoever reads it (MobileNet on 32 pixels ends so).
func TestSinglePosition(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	numbers := func(n int64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(random.NormFloat64())
		}
		return v
	}
	b := onnx.NewBuilder()
	weight := func(name string, shape ...int64) string {
		size := int64(1)
		for _, d := range shape {
			size *= d
		}
		return b.Const(onnx.NewFloat(name, shape, numbers(size)))
	}
	b.Input("x", onnx.Float, -1, 3, 4, 4)
	stem := b.Op("Conv", []string{"x", weight("stem", 8, 3, 3, 3)}, onnx.Is("pads", 1, 1, 1, 1), onnx.Is("strides", 2, 2))
	deep := b.Op("Conv", []string{stem, weight("depthwise", 8, 1, 3, 3)}, onnx.Is("pads", 1, 1, 1, 1), onnx.Is("strides", 2, 2), onnx.I("group", 8))
	y := b.Op("Relu", []string{b.Op("Add", []string{deep, b.Op("Conv", []string{deep, weight("pointwise", 8, 8, 1, 1)})})})
	y = b.Op("Flatten", []string{b.Op("GlobalAveragePool", []string{y})})
	b.Output(b.Op("Gemm", []string{y, weight("head", 8, 3)}), onnx.Float, -1, 3)
	c := classify(t, b)
	const n = 16
	feed := []*ort.Array{
		{Shape: c.ImageShape(n), F32: numbers(n * 48)}, {Shape: []int64{n}, I64: make([]int64, n)}, {Shape: []int64{n, 8}, F32: numbers(n * 8)},
		{Shape: []int64{1}, F32: []float32{0.5}}, {Shape: []int64{1}, F32: []float32{0.1}},
	}
	var got [2][]*ort.Array
	for i, plain := range []bool{true, false} {
		g, err := train.BuildGraph(c, train.StepOptions{Batch: n, Feature: true, Momentum: 0.9, PlainLayout: plain})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := g.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		s, err := ort.NewSession(raw, ort.Options{Provider: ort.CPU})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		got[i] = make([]*ort.Array, len(g.Graph.Outputs))
		if err := s.Run(context.Background(), feed, got[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range got[0] {
		if d := difference(got[1][i].F32, want.F32); d > 1e-4 {
			t.Errorf("output %d: the layouts differ by %.2g of the largest", i, d)
		}
	}
}
