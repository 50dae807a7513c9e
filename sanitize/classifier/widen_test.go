package classifier_test

import (
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// TestNarrow: a network of float16 or bfloat16, input and all, is read as one of float32 with the same scores, and its trained weights are
// written back in their own type.
func TestNarrow(t *testing.T) {
	for _, typ := range []onnx.DataType{onnx.Float16, onnx.BFloat16} {
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
