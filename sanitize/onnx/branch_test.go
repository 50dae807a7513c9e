package onnx_test

import (
	"errors"
	"testing"

	"grindstone/sanitize/onnx"
)

// TestBranches: an If whose condition is known is its branch: old operators in it, constants of its own, names that another branch uses
// too, outputs that come from outside.
func TestBranches(t *testing.T) {
	for _, tt := range []struct {
		name      string
		condition bool
		build     func(b *onnx.Builder, condition string) *onnx.Graph // of the then branch
	}{
		{"then", true, func(*onnx.Builder, string) *onnx.Graph { return clipped() }},
		{"else", false, func(*onnx.Builder, string) *onnx.Graph { return clipped() }},
		{"another If within", true, func(b *onnx.Builder, condition string) *onnx.Graph {
			body := b.Child()
			body.Add(choice(condition, "deep", clipped(), passed()))
			body.Output("deep", onnx.Float, 2, 3, 4, 5)
			return body.Graph("then")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := onnx.NewBuilder()
			b.Input("x", onnx.Float, 2, 3, 4, 5)
			condition := b.Const(onnx.NewBool("condition", nil, []bool{tt.condition}))
			then := tt.build(b, condition)
			b.Add(choice(condition, "first", then, passed()))
			b.Add(choice(condition, "second", then, passed()))
			b.Named("y", "Sub", []string{"first", b.Op("Mul", []string{"second", b.Float(3)})})
			b.Output("y", onnx.Float, 2, 3, 4, 5)
			raw, err := b.Model(9).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			m, err := onnx.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if g := checkNormalized(t, m, raw, 1e-6); count(g, "If") != 0 {
				t.Error("an If is left")
			}
		})
	}
	if _, err := onnx.Normalize(&onnx.Model{Opsets: map[string]int64{"": 17}, Graph: &onnx.Graph{
		Initializers: []*onnx.Tensor{onnx.NewBool("c", nil, []bool{true})},
		Nodes:        []*onnx.Node{{Op: "If", Inputs: []string{"c"}, Outputs: []string{"y"}}},
	}}); !errors.Is(err, onnx.ErrMalformed) {
		t.Errorf("without branches: %v", err)
	}
}

// TestBodies: what stays within control flow is brought to opset 17 as well, at any depth, with the constants of the graphs around it.
func TestBodies(t *testing.T) {
	for _, opset := range []int64{9, 11, 18} {
		b := onnx.NewBuilder()
		b.Input("x", onnx.Float, 2, 3, 4, 5)
		axes := b.Int64s(1, -1)
		condition := b.Op("Cast", []string{b.Op("Gather", []string{b.Op("Reshape", []string{"x", b.Int64s(-1)}), b.Int64(1)})}, onnx.I("to", int64(onnx.Bool)))
		deep := b.Child()
		switch opset {
		case 9:
			deep.Named("deep.y", "Clip", []string{"x"}, onnx.F("max", 0.25))
		case 11:
			deep.Named("deep.y", "Softmax", []string{"x"})
		case 18:
			deep.Named("deep.y", "ReduceMean", []string{"x", axes})
		}
		deep.Output("deep.y", onnx.Float)
		then := b.Child()
		then.Add(choice(condition, "then.y", deep.Graph("deep"), passed()))
		then.Output("then.y", onnx.Float)
		b.Add(choice(condition, "y", then.Graph("then"), passed()))
		b.Output("y", onnx.Float)
		m := b.Model(opset)
		m.Graph.Outputs[0].Shape = nil
		for _, g := range []*onnx.Graph{m.Graph.Nodes[len(m.Graph.Nodes)-1].Attr("then_branch").Graph, m.Graph.Nodes[len(m.Graph.Nodes)-1].Attr("then_branch").Graph.Nodes[0].Attr("then_branch").Graph} {
			g.Outputs[0].Shape = nil
		}
		raw, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if g := checkNormalized(t, m, raw, 1e-6); count(g, "If") != 1 {
			t.Errorf("opset %d: the If is gone", opset)
		}
	}
}

func count(g *onnx.Graph, op string) (n int) {
	for _, node := range g.Nodes {
		if node.Op == op {
			n++
		}
	}
	return n
}

func choice(condition, out string, then, other *onnx.Graph) *onnx.Node {
	return &onnx.Node{Op: "If", Inputs: []string{condition}, Outputs: []string{out}, Attrs: []*onnx.Attr{onnx.G("then_branch", then), onnx.G("else_branch", other)}}
}

// clipped is a branch of two nodes in the form of opset 9, with an initializer of its own.
func clipped() *onnx.Graph {
	return &onnx.Graph{Name: "then", Initializers: []*onnx.Tensor{onnx.NewFloat("weight", []int64{5}, []float32{1, 2, -1, 0.5, 3})}, Nodes: []*onnx.Node{
		{Name: "clip", Op: "Clip", Inputs: []string{"x"}, Outputs: []string{"inner"}, Attrs: []*onnx.Attr{onnx.F("min", -0.5), onnx.F("max", 0.25)}},
		{Name: "mul", Op: "Mul", Inputs: []string{"inner", "weight"}, Outputs: []string{"out"}},
	}, Outputs: []*onnx.Value{{Name: "out", Type: onnx.Float}}}
}

// passed is a branch that squares what comes from outside.
func passed() *onnx.Graph {
	return &onnx.Graph{Name: "else", Nodes: []*onnx.Node{{Op: "Mul", Inputs: []string{"x", "x"}, Outputs: []string{"inner"}}}, Outputs: []*onnx.Value{{Name: "inner", Type: onnx.Float}}}
}
