package classifier_test

import (
	"math"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// TestBytes: a network that takes bytes, which it moves and then makes floats of, is read as one that takes these numbers as floats.
func TestBytes(t *testing.T) {
	n := newNet()
	n.Input("x", onnx.Uint8, 2, 8, 8, 3)
	pixels := n.Op("Cast", []string{n.Op("Transpose", []string{"x"}, onnx.Is("perm", 0, 3, 1, 2))}, onnx.I("to", int64(onnx.Float)))
	y := n.Op("Conv", []string{n.Op("Div", []string{pixels, n.Float(255)}), n.weight("w", 4, 3, 3, 3), n.weight("b", 4)})
	m := n.model(t, 17, n.dense(n.pooled(n.Op("Relu", []string{y})), 4, 5))
	c := read(t, m, classifier.Options{})
	if err := c.CheckTrainable(); err != nil || !c.Bytes || c.Layout != classifier.NHWC || len(c.Trainable) != 4 {
		t.Errorf("bytes: %v, %s, trainable: %q (%v)", c.Bytes, c.Layout, c.Trainable, err)
	}
	images := noise(c, 2)
	bytes := &ort.Array{Shape: images.Shape, U8: make([]uint8, len(images.F32))}
	for i, v := range images.F32 {
		bytes.U8[i] = uint8(255 * v)
		images.F32[i] = float32(bytes.U8[i])
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(evaluate(t, c, nil, images, c.Logits)[0].F32, run(t, raw, bytes, 1)[0].F32); d > 1e-5 {
		t.Errorf("scores differ by %.2g of the largest", d)
	}
}

// TestLargestDouble: a bound that no float32 holds is the largest of them.
func TestLargestDouble(t *testing.T) {
	n := newNet()
	x := n.Op("Cast", []string{n.stem(-1)}, onnx.I("to", int64(onnx.Double)))
	x = n.Op("Clip", []string{x, n.Const(onnx.NewDouble("low", nil, []float64{0})), n.Const(onnx.NewDouble("high", nil, []float64{math.MaxFloat64}))})
	w := n.Const(onnx.NewDouble("w", []int64{8, 8}, make([]float64, 64)))
	x = n.Op("Cast", []string{n.Op("MatMul", []string{x, w})}, onnx.I("to", int64(onnx.Float)))
	m := n.model(t, 17, n.dense(n.pooled(x), 4, 5))
	c := read(t, m, classifier.Options{})
	if err := c.CheckTrainable(); err != nil || !slices.Contains(c.Trainable, "w") {
		t.Errorf("trainable: %q (%v)", c.Trainable, err)
	}
	sameClasses(t, c, m)
}

// TestNarrow: a network of float16, bfloat16 or double, input and all, is read as one of float32 with the same scores, and its trained weights are
// written back in their own type.
func TestNarrow(t *testing.T) {
	for _, typ := range []onnx.DataType{onnx.Float16, onnx.BFloat16, onnx.Double} {
		t.Run(typ.String(), func(t *testing.T) {
			n := newNet()
			x := n.Op("Cast", []string{n.stem(-1)}, onnx.I("to", int64(typ)))
			m := n.model(t, 17, n.dense(n.pooled(x), 4, 5))
			wide := read(t, m, classifier.Options{})
			images := noise(wide, 3)
			want := evaluate(t, wide, nil, images, wide.Logits)[0].F32 // before the tensors, which it shares with m, are changed
			for _, w := range m.Graph.Initializers {
				narrow, err := w.Convert(typ)
				if err != nil {
					t.Fatal(err)
				}
				narrow.Name = w.Name
				*w = *narrow
			}
			m.Graph.Inputs[0].Type, m.Graph.Outputs[0].Type = typ, typ
			raw, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if m, err = onnx.Parse(raw); err != nil {
				t.Fatal(err)
			}
			c := read(t, m, classifier.Options{})
			if len(c.Trainable) != 4 {
				t.Errorf("trainable: %q", c.Trainable)
			}
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
			got := evaluate(t, c, nil, images, c.Logits)[0].F32
			if d := difference(got, want); d > 0.02 {
				t.Errorf("scores differ by %.2g of the largest", d)
			}

			head := onnx.NewFloat("fc.b", []int64{5}, []float32{1, 2, 3, 4, 5.5})
			if raw, err = m.Rewrite(map[string]*onnx.Tensor{"fc.b": head}); err != nil {
				t.Fatal(err)
			}
			if m, err = onnx.Parse(raw); err != nil {
				t.Fatal(err)
			}
			if b := m.Graph.Initializer("fc.b"); b.Type != typ || b.Floats()[4] != 5.5 {
				t.Errorf("written as %v %v", b.Type, b.Floats())
			}
			// unchanged weights survive to the bit
			for name, k := range c.Constants {
				if w := m.Graph.Initializer(name); w != nil && name != "fc.b" && difference(w.Floats(), k.Floats()) != 0 {
					t.Errorf("%s is not what the file holds", name)
				}
			}
		})
	}
}
