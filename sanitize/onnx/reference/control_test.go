package reference

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// compareGraph runs a graph on both with its one input x.
func compareGraph(t *testing.T, b *onnx.Builder, x *Tensor) map[string]*Tensor {
	t.Helper()
	m := b.Model(17)
	want, err := Run(m.Graph, map[string]*Tensor{"x": x})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ort.Load(); errors.Is(err, ort.ErrLibrary) {
		t.Skip(err)
	}
	_, a := array(x, false)
	var names []string
	for _, v := range m.Graph.Outputs {
		names = append(names, v.Name)
	}
	got := runNative(t, "graph", m, []*ort.Array{a}, want)
	for i, name := range names {
		if diff := difference(got[i], want[name]); diff > 1e-5 {
			t.Errorf("%s differs by %g: runtime %v %v, reference %v %v", name, diff, got[i].Shape, got[i].F32, want[name].Shape, want[name].F)
		}
	}
	return want
}

func random(shape ...int64) *Tensor {
	g := &gen{r: rand.New(rand.NewPCG(1, 2))}
	return g.floats(shape...)
}

// A loop with a carried value, a captured one, a stacked output, and an end by condition before the trip count.
func TestLoop(t *testing.T) {
	for _, limit := range []float32{1e9, 20} {
		b := onnx.NewBuilder()
		b.Input("x", onnx.Float, 3)
		body := b.Child()
		i, cond, v := body.Input(b.Fresh("i"), onnx.Int64), body.Input(b.Fresh("cond"), onnx.Bool), body.Input(b.Fresh("v"), onnx.Float, 3)
		_ = cond
		next := body.Op("Add", []string{body.Op("Mul", []string{v, body.Float(2)}), "x"})
		next = body.Op("Add", []string{next, body.Op("Cast", []string{i}, onnx.I("to", int64(onnx.Float)))})
		norm := body.Op("ReduceSumSquare", []string{next}, onnx.I("keepdims", 0))
		body.Output(body.Op("Less", []string{norm, body.Float(limit)}), onnx.Bool)
		body.Output(next, onnx.Float, 3)
		body.Output(norm, onnx.Float)
		out := b.OpN("Loop", 2, []string{b.Int64(5), b.Const(onnx.NewBool("", nil, []bool{true})), "x"}, onnx.G("body", body.Graph("body")))
		b.Output(out[0], onnx.Float, 3)
		b.Output(out[1], onnx.Float, -1)
		want := compareGraph(t, b, random(3))
		if n := want[out[1]].Len(); limit == 1e9 && n != 5 || limit == 20 && n >= 5 {
			t.Errorf("limit %g: %d rounds", limit, n)
		}
	}
}

// A scan with state over a reversed second input, and outputs stacked along the last axis in both directions.
func TestScan(t *testing.T) {
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, 4, 2)
	start := b.Floats([]int64{2}, []float32{1, -1})
	turned := b.Op("Transpose", []string{"x"}, onnx.Is("perm", 1, 0))
	body := b.Child()
	s, p, q := body.Input(b.Fresh("s"), onnx.Float, 2), body.Input(b.Fresh("p"), onnx.Float, 2), body.Input(b.Fresh("q"), onnx.Float, 2)
	next := body.Op("Sub", []string{body.Op("Mul", []string{s, p}), q})
	body.Output(next, onnx.Float, 2)
	body.Output(body.Op("Neg", []string{next}), onnx.Float, 2)
	body.Output(body.Op("Identity", []string{next}), onnx.Float, 2)
	out := b.OpN("Scan", 3, []string{start, "x", turned}, onnx.G("body", body.Graph("body")), onnx.I("num_scan_inputs", 2),
		onnx.Is("scan_input_axes", 0, 1), onnx.Is("scan_input_directions", 0, 1), onnx.Is("scan_output_axes", 0, -1), onnx.Is("scan_output_directions", 0, 1))
	b.Output(out[0], onnx.Float, 2)
	b.Output(out[1], onnx.Float, 4, 2)
	b.Output(out[2], onnx.Float, 2, 4)
	compareGraph(t, b, random(4, 2))
}

func TestIf(t *testing.T) {
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, 3)
	sum := b.Op("ReduceSum", []string{"x"}, onnx.I("keepdims", 0))
	yes, no := b.Child(), b.Child()
	yes.Output(yes.Op("Exp", []string{"x"}), onnx.Float, 3)
	no.Output(no.Op("Neg", []string{"x"}), onnx.Float, 3)
	y := b.Op("If", []string{b.Op("Greater", []string{sum, b.Float(0)})}, onnx.G("then_branch", yes.Graph("yes")), onnx.G("else_branch", no.Graph("no")))
	b.Output(y, onnx.Float, 3)
	for _, v := range []float64{1, -1} {
		if got := compareGraph(t, b, Floats([]int64{3}, []float64{v, v, v}))[y].F[0]; v == -1 && got != 1 {
			t.Errorf("the other branch gives %g", got)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	x := map[string]*Tensor{"x": random(2, 3)}
	node := func(op string, in ...string) *onnx.Graph {
		return &onnx.Graph{Inputs: []*onnx.Value{onnx.NewValue("x", onnx.Float)}, Nodes: []*onnx.Node{{Op: op, Inputs: in, Outputs: []string{"y"}}}, Outputs: []*onnx.Value{onnx.NewValue("y", onnx.Float)}}
	}
	for name, c := range map[string]struct {
		g    *onnx.Graph
		in   map[string]*Tensor
		says string
	}{
		"unknown operator": {node("Odd", "x"), x, "no operator Odd"},
		"missing input":    {node("Relu", "x"), nil, `input "x" is not given`},
		"unknown value":    {node("Relu", "z"), x, `"z" is not computed`},
		"shapes":           {node("MatMul", "x", "x"), x, "do not multiply"},
		"too few inputs":   {node("Add", "x"), x, "Add"},
	} {
		if _, err := Run(c.g, c.in); !errors.Is(err, ErrGraph) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}
