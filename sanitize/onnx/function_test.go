package onnx_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
)

func call(op string, in, out []string, attrs ...*onnx.Attr) *onnx.Node {
	return &onnx.Node{Op: op, Domain: "local", Inputs: in, Outputs: out, Attrs: attrs}
}

func refer(name, to string, kind onnx.AttrType) *onnx.Attr {
	return &onnx.Attr{Name: name, Type: kind, Ref: to}
}

// withFunctions is a model that calls a function twice, which itself calls another: attributes with and without defaults, an optional
// input, inner values of one name.
func withFunctions(t *testing.T) *onnx.Model {
	t.Helper()
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, 2, 3, 4, 5)
	b.Add(call("Block", []string{"x", b.Float(0.5)}, []string{"a", "extra"}, onnx.F("alpha", 0.3)))
	b.Add(call("Block", []string{"a", ""}, []string{"b", "spare"})) // ONNX Runtime 1.27 aborts where a call leaves out the last ones altogether
	b.Named("y", "Add", []string{"b", "extra"})
	b.Output("y", onnx.Float)
	m := b.Model(17)
	m.Graph.Outputs[0].Shape = nil
	m.Opsets["local"] = 1
	standard := map[string]int64{"": 17, "local": 1}
	m.Functions = []*onnx.Function{
		{Name: "Block", Domain: "local", Inputs: []string{"in", "top"}, Outputs: []string{"out", "sum"}, Defaults: []*onnx.Attr{onnx.F("alpha", 0.1)}, Opsets: standard,
			Nodes: []*onnx.Node{
				{Name: "clip", Op: "Clip", Inputs: []string{"in", "", "top"}, Outputs: []string{"v"}},
				call("Twice", []string{"v"}, []string{"w"}),
				{Name: "leak", Op: "LeakyRelu", Inputs: []string{"w"}, Outputs: []string{"out"}, Attrs: []*onnx.Attr{refer("alpha", "alpha", onnx.AttrFloat)}},
				{Name: "sum", Op: "Add", Inputs: []string{"v", "w"}, Outputs: []string{"sum"}},
			}},
		{Name: "Twice", Domain: "local", Inputs: []string{"in"}, Outputs: []string{"out"}, Attrs: []string{"unused"}, Opsets: standard,
			Nodes: []*onnx.Node{
				{Name: "two", Op: "Constant", Outputs: []string{"v"}, Attrs: []*onnx.Attr{onnx.F("value_float", 2)}},
				{Name: "elu", Op: "Elu", Inputs: []string{"in"}, Outputs: []string{"w"}, Attrs: []*onnx.Attr{refer("alpha", "unused", onnx.AttrFloat)}},
				{Name: "times", Op: "Mul", Inputs: []string{"w", "v"}, Outputs: []string{"out"}},
			}},
	}
	return m
}

// TestFunctions: a model with functions computes the same without them, and they survive writing.
func TestFunctions(t *testing.T) {
	raw, err := withFunctions(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.Marshal(); err != nil || !slices.Equal(again, raw) {
		t.Errorf("written again it differs (%v)", err)
	}
	checkNormalized(t, m, raw, 1e-6)
}

// TestFunctionsOfOtherVersions: libraries of functions have a version of their own. They are read where their operators are the same in the graph's, nodes
// without a name among them.
func TestFunctionsOfOtherVersions(t *testing.T) {
	m := withFunctions(t)
	m.Functions[1].Opsets = map[string]int64{"": 21}
	for _, n := range m.Functions[1].Nodes {
		n.Name = ""
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	checkNormalized(t, m, raw, 1e-6)
}

// TestArgumentsLeftOut: a call may leave out its last inputs and outputs, which ONNX Runtime 1.27 does not survive. Without functions the
// model is the one that says that they are absent.
func TestArgumentsLeftOut(t *testing.T) {
	said := withFunctions(t)
	short := withFunctions(t)
	second := short.Graph.Nodes[1]
	second.Inputs, second.Outputs = second.Inputs[:1], second.Outputs[:1]
	for _, m := range []*onnx.Model{said, short} {
		m.Graph.Nodes[1].Outputs = m.Graph.Nodes[1].Outputs[:1]
	}
	var nodes [2][]string
	for i, m := range []*onnx.Model{said, short} {
		g, err := onnx.Normalize(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range g.Nodes {
			if n.Domain != "" {
				t.Errorf("%s still calls a function", n.Label())
			}
			nodes[i] = append(nodes[i], fmt.Sprint(n.Op, n.Inputs, n.Outputs))
		}
	}
	if !slices.Equal(nodes[0], nodes[1]) {
		t.Errorf("left out:\n%v\nsaid to be absent:\n%v", nodes[1], nodes[0])
	}
}

func TestFunctionsRefused(t *testing.T) {
	for says, change := range map[string]func(m *onnx.Model){
		"defined twice": func(m *onnx.Model) { m.Functions = append(m.Functions, m.Functions[0]) },
		"written in version 10, the graph in 17, and Clip differs": func(m *onnx.Model) { m.Functions[0].Opsets = map[string]int64{"": 10} },
		"3 inputs": func(m *onnx.Model) { m.Graph.Nodes[0].Inputs = []string{"x", "", ""} },
		"deep": func(m *onnx.Model) {
			m.Functions[1].Nodes = append(m.Functions[1].Nodes, call("Block", []string{"in"}, []string{"again"}))
		},
		"an input, or given twice": func(m *onnx.Model) { m.Functions[1].Outputs = []string{"in"} },
		"control flow": func(m *onnx.Model) {
			m.Functions[1].Nodes[1] = &onnx.Node{Op: "If", Inputs: []string{"in"}, Outputs: []string{"w"}, Attrs: []*onnx.Attr{{Name: "then_branch", Type: onnx.AttrGraph, Graph: &onnx.Graph{}}}}
		},
		"more than 1048576 times": func(m *onnx.Model) { // a small file that would never end
			m.Functions = m.Functions[:0]
			for i := range 12 {
				f := &onnx.Function{Name: fmt.Sprint("f", i), Domain: "local"}
				for range 100 {
					f.Nodes = append(f.Nodes, call(fmt.Sprint("f", i+1), nil, nil))
				}
				m.Functions = append(m.Functions, f)
			}
			m.Functions[11].Nodes = nil
			m.Graph.Nodes = []*onnx.Node{call("f0", nil, nil)}
		},
	} {
		m := withFunctions(t)
		change(m)
		if _, err := onnx.Normalize(m); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one about %q", err, says)
		}
	}

	// Outside of a function there is no call to refer to.
	m := withFunctions(t)
	m.Graph.Nodes[0].Attrs = []*onnx.Attr{refer("alpha", "alpha", onnx.AttrFloat)}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.Parse(raw); !errors.Is(err, onnx.ErrMalformed) {
		t.Errorf("a reference in the graph: %v", err)
	}
}
