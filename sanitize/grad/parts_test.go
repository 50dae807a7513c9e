package grad_test

import (
	"slices"
	"testing"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
)

// TestParts: a value whose parts are read by themselves. y = a*b with a and b picked from x, so that dy/da = b and dy/db = a.
func TestParts(t *testing.T) {
	slice := func(out string, from, to string) *onnx.Node {
		return &onnx.Node{Op: "Slice", Inputs: []string{"x", from, to, "zero"}, Outputs: []string{out}}
	}
	for name, tt := range map[string]struct {
		nodes []*onnx.Node
		want  []float64
		pads  int // that are emitted
	}{
		"halves":  {[]*onnx.Node{slice("b", "two", "four"), slice("a", "zero", "two")}, []float64{3, 4, 1, 2}, 0},
		"overlap": {[]*onnx.Node{slice("a", "zero", "two"), slice("b", "one", "three")}, []float64{2, 1 + 3, 2, 0}, 2},
		"a gap":   {[]*onnx.Node{slice("a", "zero", "one"), slice("b", "two", "three")}, []float64{3, 0, 1, 0}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := append(slices.Clone(tt.nodes), &onnx.Node{Op: "Mul", Inputs: []string{"a", "b"}, Outputs: []string{"y"}})
			values := map[string]*reference.Tensor{"x": reference.Floats([]int64{4}, []float64{1, 2, 3, 4})}
			constants := map[string]*onnx.Tensor{}
			for i, n := range []string{"zero", "one", "two", "three", "four"} {
				constants[n] = onnx.NewInt64(n, []int64{1}, []int64{int64(i)})
			}
			forward := &onnx.Graph{Nodes: nodes, Outputs: []*onnx.Value{{Name: "y"}}}
			for _, name := range []string{"zero", "one", "two", "three", "four"} {
				forward.Initializers = append(forward.Initializers, constants[name])
			}
			all, err := reference.RunAll(forward, values)
			if err != nil {
				t.Fatal(err)
			}
			shapes := map[string][]int64{}
			for n, v := range all {
				shapes[n] = v.Shape
			}
			b := onnx.NewBuilder()
			b.Input("x", onnx.Double, 4)
			b.Input("dy", onnx.Double, shapes["y"]...)
			for _, c := range forward.Initializers {
				b.Const(c)
			}
			tape := grad.NewTape(b, shapes, constants)
			tape.Forward(nodes)
			g, err := tape.Backward(nodes, map[string]string{"y": "dy"}, []string{"x"})
			if err != nil {
				t.Fatal(err)
			}
			b.Output(g["x"], onnx.Double)
			graph := b.Graph("parts")
			ones := make([]float64, shapes["y"][0])
			for i := range ones {
				ones[i] = 1
			}
			values["dy"] = reference.Floats(shapes["y"], ones)
			out, err := reference.RunAll(graph, values)
			if err != nil {
				t.Fatal(err)
			}
			if got := out[g["x"]]; !slices.Equal(got.F, tt.want) {
				t.Errorf("gradient %v, want %v", got.F, tt.want)
			}
			pads := 0
			for _, n := range graph.Nodes {
				if n.Op == "Pad" {
					pads++
				}
			}
			if pads != tt.pads {
				t.Errorf("%d Pads, want %d", pads, tt.pads)
			}
		})
	}
}
