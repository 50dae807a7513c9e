package onnx

import (
	"errors"
	"fmt"
	"slices"
)

// Opset is the version of the standard operators that Normalize brings a graph to and that all built graphs use. Later versions of
// some operators have no CUDA kernel and would fall back to the CPU.
const Opset = 17

// ErrOperatorSet means that a model uses a version of the operators that cannot be brought to Opset.
var ErrOperatorSet = errors.New("unsupported operator set")

// Normalize returns the model's graph in terms of opset 17: Constant nodes become initializers, arguments that were attributes become
// inputs, what training does not need (Dropout) becomes Identity. The model is not changed; unchanged nodes are shared.
func Normalize(m *Model) (*Graph, error) {
	version, ok := m.Opsets[""]
	if !ok {
		version = m.Opsets["ai.onnx"]
	}
	if version < 7 {
		return nil, &Error{What: "opset_import", Err: fmt.Errorf("%w: version %d, at least 7 is needed", ErrOperatorSet, version)}
	}
	g := &Graph{Name: m.Graph.Name, Initializers: slices.Clone(m.Graph.Initializers), Inputs: m.Graph.Inputs, Outputs: m.Graph.Outputs, Values: m.Graph.Values}
	u := &upgrade{model: m, graph: g, version: version}
	for _, n := range m.Graph.Nodes {
		if n.Domain == "ai.onnx" {
			standard := *n
			standard.Domain = ""
			n = &standard
		}
		if n.Domain == "" && n.Op == "Constant" {
			if t := constantValue(n); t != nil {
				g.Initializers = append(g.Initializers, t)
				continue
			}
		}
		if f := upgrades[n.Op]; f != nil && n.Domain == "" {
			changed, err := f(u, n)
			if err != nil {
				return nil, &Error{Node: n.Label(), What: n.Op, Err: err}
			}
			n = changed
		}
		g.Nodes = append(g.Nodes, n)
	}
	return g, nil
}

// constantValue is the tensor that a Constant node makes, nil for kinds that are no tensor.
func constantValue(n *Node) *Tensor {
	name := n.Output(0)
	for _, a := range n.Attrs {
		switch a.Name {
		case "value":
			if a.Tensor == nil {
				return nil
			}
			t := *a.Tensor
			t.Name = name
			return &t
		case "value_float":
			return NewFloat(name, nil, []float32{a.F})
		case "value_floats":
			return NewFloat(name, []int64{int64(len(a.Floats))}, a.Floats)
		case "value_int":
			return NewInt64(name, nil, []int64{a.I})
		case "value_ints":
			return NewInt64(name, []int64{int64(len(a.Ints))}, a.Ints)
		}
	}
	return nil
}

type upgrade struct {
	model   *Model
	graph   *Graph // as far as it is made
	version int64  // of the model's operators
	made    int
}

// upgrades brings single operators to opset 17.
var upgrades = map[string]func(u *upgrade, n *Node) (*Node, error){
	"BatchNormalization": (*upgrade).batchNormalization,
	"Clip":               (*upgrade).clip,
	"Dropout":            (*upgrade).dropout,
	"LogSoftmax":         (*upgrade).softmax,
	"Pad":                (*upgrade).pad,
	"ReduceMax":          (*upgrade).reduceAttribute,
	"ReduceMean":         (*upgrade).reduceAttribute,
	"ReduceMin":          (*upgrade).reduceAttribute,
	"ReduceSum":          (*upgrade).axesInput,
	"Softmax":            (*upgrade).softmax,
	"Squeeze":            (*upgrade).axesInput,
	"Unsqueeze":          (*upgrade).axesInput,
}

// replace returns a copy of a node with other inputs and without the named attributes.
func (n *Node) replace(inputs []string, without ...string) *Node {
	c := *n
	c.Inputs = inputs
	c.Attrs = slices.DeleteFunc(slices.Clone(n.Attrs), func(a *Attr) bool { return slices.Contains(without, a.Name) })
	return &c
}

// fresh returns a new name for something about a value.
func (u *upgrade) fresh(value, what string) string {
	u.made++
	return fmt.Sprintf("%s/%s_%d", value, what, u.made)
}

func (u *upgrade) constant(n *Node, what string, make func(name string) *Tensor) string {
	t := make(u.fresh(n.Output(0), what))
	u.graph.Initializers = append(u.graph.Initializers, t)
	return t.Name
}

func (u *upgrade) ints(n *Node, what string, v []int64) string {
	return u.constant(n, what, func(name string) *Tensor { return NewInt64(name, []int64{int64(len(v))}, v) })
}

func (u *upgrade) scalar(n *Node, what string, v float32) string {
	return u.constant(n, what, func(name string) *Tensor { return NewFloat(name, nil, []float32{v}) })
}

// axesInput: until opset 12 axes were an attribute.
func (u *upgrade) axesInput(n *Node) (*Node, error) {
	if n.Attr("axes") == nil {
		return n, nil
	}
	return n.replace([]string{n.Inputs[0], u.ints(n, "axes", n.Ints("axes"))}, "axes"), nil
}

// reduceAttribute: since opset 18 axes are an input; at 17 an attribute.
func (u *upgrade) reduceAttribute(n *Node) (*Node, error) {
	name := n.Input(1)
	if name == "" {
		if n.Int("noop_with_empty_axes", 0) != 0 {
			return &Node{Name: n.Name, Op: "Identity", Inputs: n.Inputs[:1], Outputs: n.Outputs}, nil
		}
		return n.replace(n.Inputs[:1], "noop_with_empty_axes"), nil
	}
	t := u.graph.Initializer(name)
	if t == nil {
		return nil, fmt.Errorf("axes %q are not constant", name)
	}
	c := n.replace(n.Inputs[:1], "noop_with_empty_axes")
	c.Attrs = append(c.Attrs, Is("axes", t.Ints()...))
	return c, nil
}

// pad: until opset 10 pads and value were attributes; since 18 there may be an axes input. Exporters leave pads of zero, which do
// nothing.
func (u *upgrade) pad(n *Node) (*Node, error) {
	if n.Input(3) != "" {
		return nil, errors.New("an axes input is not supported")
	}
	pads := n.Ints("pads")
	if t := u.graph.Initializer(n.Input(1)); t != nil {
		pads = t.Ints()
	}
	if len(pads) > 0 && !slices.ContainsFunc(pads, func(p int64) bool { return p != 0 }) {
		return &Node{Name: n.Name, Op: "Identity", Inputs: n.Inputs[:1], Outputs: n.Outputs}, nil
	}
	if n.Attr("pads") == nil {
		return n, nil
	}
	in := []string{n.Inputs[0], u.ints(n, "pads", n.Ints("pads"))}
	if v := n.Float("value", 0); v != 0 {
		in = append(in, u.scalar(n, "value", v))
	}
	return n.replace(in, "pads", "value"), nil
}

// clip: until opset 10 the bounds were attributes.
func (u *upgrade) clip(n *Node) (*Node, error) {
	if n.Attr("min") == nil && n.Attr("max") == nil {
		return n, nil
	}
	in := []string{n.Inputs[0], "", ""}
	if a := n.Attr("min"); a != nil {
		in[1] = u.scalar(n, "min", a.F)
	}
	if a := n.Attr("max"); a != nil {
		in[2] = u.scalar(n, "max", a.F)
	}
	return n.replace(in, "min", "max"), nil
}

// dropout does nothing outside of training, and Feature Grinding trains without it.
func (u *upgrade) dropout(n *Node) (*Node, error) {
	return &Node{Name: n.Name, Op: "Identity", Inputs: n.Inputs[:1], Outputs: n.Outputs[:1]}, nil
}

// batchNormalization keeps what inference at opset 17 knows.
func (u *upgrade) batchNormalization(n *Node) (*Node, error) {
	if n.Int("spatial", 1) == 0 {
		return nil, errors.New("spatial=0 (statistics per activation) is not supported")
	}
	c := n.replace(n.Inputs, "spatial", "training_mode", "is_test", "consumed_inputs")
	c.Outputs = n.Outputs[:1]
	return c, nil
}

// softmax: until opset 12 the input was flattened to two dimensions at the axis, which defaulted to 1. That is spelled out, except for
// the Softmax that closes a classifier, whose input has two dimensions.
func (u *upgrade) softmax(n *Node) (*Node, error) {
	if u.version >= 13 {
		return n, nil
	}
	axis := n.Int("axis", 1)
	c := n.replace(n.Inputs, "axis")
	if u.closes(n.Output(0)) {
		if axis != 1 && axis != -1 {
			return nil, fmt.Errorf("axis %d at opset %d is not supported", axis, u.version)
		}
		c.Attrs = append(c.Attrs, I("axis", axis))
		return c, nil
	}
	x, out := n.Inputs[0], n.Output(0)
	flat, rows, shape := u.fresh(out, "flat"), u.fresh(out, "rows"), u.fresh(out, "shape")
	c.Inputs, c.Outputs, c.Attrs = []string{flat}, []string{rows}, append(c.Attrs, I("axis", 1))
	u.graph.Nodes = append(u.graph.Nodes,
		&Node{Name: n.Name + "/flatten", Op: "Flatten", Inputs: []string{x}, Outputs: []string{flat}, Attrs: []*Attr{I("axis", axis)}},
		&Node{Name: n.Name + "/shape", Op: "Shape", Inputs: []string{x}, Outputs: []string{shape}}, c)
	return &Node{Name: n.Name + "/restore", Op: "Reshape", Inputs: []string{rows, shape}, Outputs: n.Outputs[:1]}, nil
}

// closes reports whether a value is an output of the model, or becomes one by nothing but Identity.
func (u *upgrade) closes(value string) bool {
	for _, o := range u.model.Graph.Outputs {
		if o.Name == value {
			return true
		}
	}
	for _, n := range u.model.Graph.Nodes {
		if n.Op == "Identity" && n.Input(0) == value && u.closes(n.Output(0)) {
			return true
		}
	}
	return false
}
