package train

import (
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// TestExecution: the order that the estimate of memory goes by is the one in which the runtime runs the nodes of a step.
func TestExecution(t *testing.T) {
	c, err := classifier.Open(shared.Path(t, "models", "nad-wrn16-badnet.onnx"), classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := StepOptions{Batch: 16, Feature: true, Momentum: 0.9}
	m, err := BuildGraph(c, o)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range execution(m.Graph) {
		want = append(want, n.Outputs[0])
	}
	ran, err := Placement(t.Context(), c, o, ort.Options{Provider: ort.CPU, Optimize: ort.OptimizeNone})
	if err != nil {
		t.Fatal(err)
	}
	if len(ran) != len(want) {
		t.Fatalf("%d nodes ran, %d are in the graph", len(ran), len(want))
	}
	for i, n := range ran {
		if n.Node != want[i] {
			t.Fatalf("node %d of %d was %s, not %s", i, len(ran), n.Node, want[i])
		}
	}
}

// TestPeak: memory that is shared, written over, taken up again and never read.
func TestPeak(t *testing.T) {
	port := func(shape ...int64) ort.Port { return ort.Port{Type: 1, Shape: shape} }
	node := func(op, out string, in ...string) *onnx.Node {
		return &onnx.Node{Op: op, Inputs: in, Outputs: []string{out}}
	}
	for name, tt := range map[string]struct {
		nodes   []*onnx.Node
		outputs []string
		ports   map[string]ort.Port
		want    int64
		open    int64 // with shapes that are not known beforehand
	}{
		"a chain": {[]*onnx.Node{node("MatMul", "a", "x"), node("MatMul", "b", "a"), node("MatMul", "c", "b")}, []string{"c"},
			map[string]ort.Port{"a": port(10), "b": port(20), "c": port(30)}, 4 * (10 + 20), 4 * (10 + 20)},
		"written over": {[]*onnx.Node{node("MatMul", "a", "x"), node("Relu", "b", "a"), node("Exp", "c", "b")}, []string{"c"},
			map[string]ort.Port{"a": port(10), "b": port(10), "c": port(10)}, 4 * 10, 4 * 20},
		"not written over while it is read": {[]*onnx.Node{node("MatMul", "a", "x"), node("Relu", "b", "a"), node("Add", "c", "b", "a")}, []string{"c"},
			map[string]ort.Port{"a": port(10), "b": port(10), "c": port(10)}, 4 * 20, 4 * 20},
		"a view": {[]*onnx.Node{node("MatMul", "a", "x"), node("Reshape", "b", "a", "shape"), node("MatMul", "c", "b")}, []string{"c"},
			map[string]ort.Port{"a": port(10), "b": port(5, 2), "c": port(1)}, 4 * 10, 4 * 10},
		"a view of an input": {[]*onnx.Node{node("Reshape", "b", "x", "shape"), node("MatMul", "c", "b")}, []string{"c"},
			map[string]ort.Port{"b": port(5, 2), "c": port(1)}, 0, 0},
		"taken up again, and so kept in between": {[]*onnx.Node{node("MatMul", "a", "x"), node("MatMul", "b", "a"), node("MatMul", "c", "b"), node("MatMul", "d", "c"),
			node("MatMul", "e", "d")}, []string{"e"},
			map[string]ort.Port{"a": port(10), "b": port(30), "c": port(2), "d": port(10), "e": port(50)}, 4 * 42, 4 * 40},
	} {
		g := &onnx.Graph{Nodes: tt.nodes}
		for _, out := range tt.outputs {
			g.Outputs = append(g.Outputs, &onnx.Value{Name: out})
		}
		if got := peak(g, tt.ports, tt.ports); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", name, got, tt.want)
		}
		open := map[string]ort.Port{}
		for out := range tt.ports {
			open[out] = port(-1)
		}
		if got := peak(g, tt.ports, open); got != tt.open {
			t.Errorf("%s, shapes unknown: %d bytes, want %d", name, got, tt.open)
		}
	}
}
