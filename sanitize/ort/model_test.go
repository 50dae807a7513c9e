package ort

import (
	"testing"

	"grindstone/sanitize/onnx"
)

// value declares an input or output. A nil shape is an unknown rank, a negative dimension an unknown size.
func value(name string, typ int32, shape []int64) *onnx.Value {
	v := onnx.NewValue(name, onnx.DataType(typ), shape...)
	if shape == nil {
		v.Shape = nil
	}
	return v
}

func node(op string, inputs, outputs []string, attrs ...*onnx.Attr) *onnx.Node {
	return &onnx.Node{Op: op, Inputs: inputs, Outputs: outputs, Attrs: attrs}
}

// marshal makes a model of a graph.
func marshal(t testing.TB, g onnx.Graph) []byte {
	t.Helper()
	g.Name = "g"
	m := onnx.Model{IRVersion: 8, Opsets: map[string]int64{"": 17}, Graph: &g}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// unary is Y = op(X).
func unary(t testing.TB, op string, typ int32, in, out []int64, attrs ...*onnx.Attr) []byte {
	t.Helper()
	return marshal(t, onnx.Graph{
		Nodes:   []*onnx.Node{node(op, []string{"X"}, []string{"Y"}, attrs...)},
		Inputs:  []*onnx.Value{value("X", typ, in)},
		Outputs: []*onnx.Value{value("Y", typ, out)},
	})
}

// endless is Y = a Loop that takes square roots 2^62 times.
func endless(t testing.TB) []byte {
	body := &onnx.Graph{
		Name: "body",
		Nodes: []*onnx.Node{
			node("Identity", []string{"cond"}, []string{"again"}),
			node("Sqrt", []string{"x"}, []string{"y"}),
		},
		Inputs:  []*onnx.Value{value("i", 7, []int64{}), value("cond", 9, []int64{}), value("x", 1, []int64{64})},
		Outputs: []*onnx.Value{value("again", 9, []int64{}), value("y", 1, []int64{64})},
	}
	return marshal(t, onnx.Graph{
		Nodes:   []*onnx.Node{node("Loop", []string{"trips", "go", "X"}, []string{"Y"}, onnx.G("body", body))},
		Inputs:  []*onnx.Value{value("X", 1, []int64{64})},
		Outputs: []*onnx.Value{value("Y", 1, []int64{64})},
		Initializers: []*onnx.Tensor{
			onnx.NewInt64("trips", []int64{}, []int64{1 << 62}),
			onnx.NewBool("go", []int64{}, []bool{true}),
		},
	})
}

// open makes a session on the CPU. A machine without the library fails the test: nothing here can be tested without.
func open(t testing.TB, model []byte, opt Options) *Session {
	t.Helper()
	if opt.Provider == "" {
		opt.Provider = CPU
	}
	s, err := NewSession(model, opt)
	if err != nil {
		t.Fatalf("%v\n(run `make runtime` first)", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
