package onnx

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// sample uses all of the builder: two kinds of inputs, shared constants, all attribute types and a subgraph.
func sample() *Builder {
	b := NewBuilder()
	b.Input("x", Float, -1, 4)
	w := b.Const(NewFloat("w", []int64{4, 2}, []float32{1, 2, 3, 4, 5, 6, 7, 8}))
	y := b.Op("MatMul", []string{"x", w})
	y = b.Op("Add", []string{y, b.Float(1)})
	y = b.Op("Mul", []string{y, b.Float(1)})
	y = b.Op("Reshape", []string{y, b.Int64s(-1, 2)}, I("allowzero", 0))
	body := b.Child()
	z := body.Op("Mul", []string{y, body.Float(3)})
	body.Output(z, Float, -1, 2)
	other := b.Child()
	z = other.Op("Neg", []string{y})
	other.Output(z, Float, -1, 2)
	y = b.Op("If", []string{b.Const(NewBool("", nil, []bool{true}))}, G("then_branch", body.Graph("then")), G("else_branch", other.Graph("else")))
	parts := b.OpN("Split", 2, []string{y, b.Int64s(1, 1)}, I("axis", 1))
	b.Named("y", "Sum", parts)
	b.Add(&Node{Name: "odd", Op: "Odd", Domain: "example", Inputs: []string{"", "y"}, Outputs: []string{"z"}, Attrs: []*Attr{
		F("f", -0.5), Fs("fs", 1, 2), Is("is", -1, 0, 1), S("s", "NOTSET"), T("t", NewDouble("", []int64{2}, []float64{1, 2})),
		{Name: "ss", Type: AttrStrings, Strings: [][]byte{[]byte("a"), {}}},
	}})
	b.Output("y", Float, -1, 1)
	return b
}

func TestBuilderRoundTrip(t *testing.T) {
	m := sample().Model(17)
	m.Metadata = map[string]string{"b": "2", "a": "1"}
	m.Opsets["example"] = 1
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !Equal(m, got) {
		t.Error("the model read back is not equal")
	}
	got.Graph.Nodes[0].Inputs[0] = "w"
	if Equal(m, got) {
		t.Error("a changed model is equal")
	}
	n := got.Graph.Nodes[len(got.Graph.Nodes)-1]
	if n.Float("f", 0) != -0.5 || !slices.Equal(n.Ints("is"), []int64{-1, 0, 1}) || n.String("s", "") != "NOTSET" || n.Int("absent", 7) != 7 ||
		!slices.Equal(n.Attr("t").Tensor.Doubles(), []float64{1, 2}) || n.Input(0) != "" || n.Input(5) != "" || n.Domain != "example" {
		t.Errorf("attributes read back wrong: %+v", n)
	}
}

func TestBuilderSharesConstants(t *testing.T) {
	g := sample().Graph("g")
	var names []string
	for _, c := range g.Initializers {
		names = append(names, c.Name)
	}
	// w, 1, [-1 2], 3 (of the subgraph), true, [1 1]
	if len(names) != 6 {
		t.Errorf("constants %v, want 6 of them", names)
	}
	for _, n := range g.Nodes {
		for _, a := range n.Attrs {
			if a.Graph != nil && len(a.Graph.Initializers) != 0 {
				t.Errorf("%s has constants of its own", a.Name)
			}
		}
	}
}

func TestBuilderNames(t *testing.T) {
	b := NewBuilder()
	b.Reserve(&Graph{Nodes: []*Node{{Outputs: []string{"relu_1"}}}})
	if y := b.Op("Relu", []string{"x"}); y == "relu_1" {
		t.Error("a reserved name was given away")
	}
	b.Named("relu_1", "Relu", []string{"x"})
	if b.Err() != nil {
		t.Error(b.Err())
	}
	b.Child().Named("relu_1", "Relu", []string{"x"})
	if _, err := b.Model(17).Marshal(); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), `"relu_1"`) {
		t.Errorf("a name defined twice gives %v", err)
	}
}

func TestGraphQueries(t *testing.T) {
	g := sample().Graph("g")
	producer, consumers := g.Producer(), g.Consumers()
	n := g.Find("y")
	if n == nil || n.Op != "Sum" || producer["y"] != n || g.Find("x") != nil || g.Find("") != nil {
		t.Errorf("y is computed by %v", n)
	}
	reshape := g.Nodes[3]
	readers := consumers[reshape.Outputs[0]]
	if len(readers) != 1 || readers[0].Op != "If" {
		t.Errorf("the subgraphs' reader of an outer value is %v", readers)
	}
	if captures := g.Nodes[4].Captures(); !slices.Contains(captures, reshape.Outputs[0]) || len(captures) != 2 {
		t.Errorf("captures %v, want the value and the constant", captures)
	}
	if g.Initializer("w") == nil || g.Initializer("x") != nil {
		t.Error("initializers are not found by name")
	}
	v := g.Value("x")
	if v == nil || !reflect.DeepEqual(v.Sizes(), []int64{-1, 4}) || v.Fixed() || g.Value("none") != nil {
		t.Errorf("x is described as %+v", v)
	}
	g.Inputs = append(g.Inputs, NewValue("w", Float, 4, 2))
	if in := g.DataInputs(); len(in) != 1 || in[0].Name != "x" {
		t.Errorf("data inputs %v, want x alone", in)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, m := range map[string]*Model{
		"too few elements":   {Graph: &Graph{Initializers: []*Tensor{NewFloat("w", []int64{3}, []float32{1})}}},
		"unknown attribute":  {Graph: &Graph{Nodes: []*Node{{Attrs: []*Attr{{Name: "a", Type: 13}}}}}},
		"no graph":           {},
		"value not a tensor": {Graph: &Graph{Outputs: []*Value{{Name: "seq", NotTensor: true}}}},
	} {
		if _, err := m.Marshal(); err == nil {
			t.Errorf("%s: written without an error", name)
		}
	}
}
