package onnx

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"
)

// Builder assembles a graph node by node. Op and its siblings append a node and return the names of its outputs, so that expressions
// read like formulas:
//
//	b := NewBuilder()
//	b.Input("x", Float, -1, 10)
//	y := b.Op("Mul", []string{"x", b.Float(2)})
//
// Mistakes (a name defined twice) are kept and reported by Err and by Marshal of the finished model.
type Builder struct {
	root  *Builder
	graph Graph

	// of the outermost builder only
	defined  map[string]bool
	reserved map[string]bool
	serial   map[string]int
	consts   map[[32]byte]string
	domains  map[string]int64 // operator sets of ONNX Runtime's own that nodes are of, and their versions
	err      error
}

// Operator sets of ONNX Runtime's own (docs/ContribOperators.md and onnxruntime/core/graph/contrib_ops/nchwc_schema_defs.cc).
const (
	Contrib = "com.microsoft"
	NCHWc   = "com.microsoft.nchwc" // on tensors that have the channels in blocks, innermost
)

// NewBuilder starts an empty graph.
func NewBuilder() *Builder {
	b := &Builder{defined: map[string]bool{}, reserved: map[string]bool{}, serial: map[string]int{}, consts: map[[32]byte]string{}, domains: map[string]int64{"": 0}}
	b.root = b
	return b
}

// Child starts the graph of a subgraph body (Loop, Scan, If). Names stay unique across the whole model, and constants go to the
// outermost graph, where a loop keeps them on the device.
func (b *Builder) Child() *Builder { return &Builder{root: b.root} }

// Err is the first mistake made with the builder or its children.
func (b *Builder) Err() error { return b.root.err }

// Fresh returns a name that nothing in the model has: hint and a number.
func (b *Builder) Fresh(hint string) string {
	r := b.root
	for {
		r.serial[hint]++
		name := fmt.Sprintf("%s_%d", hint, r.serial[hint])
		if !r.defined[name] && !r.reserved[name] {
			r.reserved[name] = true
			return name
		}
	}
}

// Reserve keeps fresh names clear of those in g and its subgraphs, for when its nodes are added later on.
func (b *Builder) Reserve(g *Graph) {
	for _, list := range [][]*Value{g.Inputs, g.Outputs} {
		for _, v := range list {
			b.root.reserved[v.Name] = true
		}
	}
	for _, t := range g.Initializers {
		b.root.reserved[t.Name] = true
	}
	for _, n := range g.Nodes {
		for _, out := range n.Outputs {
			b.root.reserved[out] = true
		}
		for _, a := range n.Attrs {
			if a.Graph != nil {
				b.Reserve(a.Graph)
			}
		}
	}
}

func (b *Builder) define(name string) {
	if name == "" {
		return
	}
	if b.root.defined[name] && b.root.err == nil {
		b.root.err = &Error{What: fmt.Sprintf("value %q", name), Err: malformed("the name is defined twice")}
	}
	b.root.defined[name] = true
}

// Op appends a node with one output and returns its fresh name.
func (b *Builder) Op(op string, in []string, attrs ...*Attr) string {
	return b.OpN(op, 1, in, attrs...)[0]
}

// OpN appends a node with n outputs and returns their fresh names.
func (b *Builder) OpN(op string, n int, in []string, attrs ...*Attr) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = b.Fresh(strings.ToLower(op))
	}
	b.Add(&Node{Op: op, Inputs: in, Outputs: out, Attrs: attrs})
	return out
}

// Own appends a node of one of ONNX Runtime's own operator sets, with one output, and returns its fresh name.
func (b *Builder) Own(domain, op string, in []string, attrs ...*Attr) string {
	out := b.Fresh(strings.ToLower(op))
	b.Add(&Node{Domain: domain, Op: op, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

// Named appends a node whose one output has exactly this name.
func (b *Builder) Named(out string, op string, in []string, attrs ...*Attr) string {
	b.Add(&Node{Op: op, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

// Add appends a copy of an existing node, with its names as they are.
func (b *Builder) Add(n *Node) {
	c := *n
	c.Inputs, c.Outputs, c.Attrs = append([]string(nil), n.Inputs...), append([]string(nil), n.Outputs...), append([]*Attr(nil), n.Attrs...)
	for _, out := range c.Outputs {
		b.define(out)
	}
	if c.Domain != "" {
		b.root.domains[c.Domain] = 1
	}
	b.graph.Nodes = append(b.graph.Nodes, &c)
}

// Const adds an initializer to the outermost graph and returns its name. A tensor with a name keeps it; one without shares a fresh name
// with all that are equal to it.
func (b *Builder) Const(t *Tensor) string {
	r := b.root
	if t.Name != "" {
		b.define(t.Name)
		r.graph.Initializers = append(r.graph.Initializers, t)
		return t.Name
	}
	h := sha256.New()
	fmt.Fprint(h, t.Type, t.Shape, len(t.Strings))
	h.Write(t.Raw)
	for _, s := range t.Strings {
		fmt.Fprintf(h, "%q", s)
	}
	key := [32]byte(h.Sum(nil))
	if name, known := r.consts[key]; known {
		return name
	}
	c := *t
	c.Name = b.Fresh("const")
	b.define(c.Name)
	r.consts[key] = c.Name
	r.graph.Initializers = append(r.graph.Initializers, &c)
	return c.Name
}

// Float is a float32 scalar constant.
func (b *Builder) Float(v float32) string { return b.Const(NewFloat("", nil, []float32{v})) }

// Floats is a float32 constant.
func (b *Builder) Floats(shape []int64, v []float32) string { return b.Const(NewFloat("", shape, v)) }

// Int64 is an int64 scalar constant.
func (b *Builder) Int64(v int64) string { return b.Const(NewInt64("", nil, []int64{v})) }

// Int64s is a 1-D int64 constant: shapes, axes.
func (b *Builder) Int64s(v ...int64) string {
	return b.Const(NewInt64("", []int64{int64(len(v))}, v))
}

// Input declares a graph input; -1 is a dynamic dimension. It returns the name.
func (b *Builder) Input(name string, t DataType, shape ...int64) string {
	b.define(name)
	b.graph.Inputs = append(b.graph.Inputs, NewValue(name, t, shape...))
	return name
}

// Default declares a graph input that need not be fed: t, which has a name, is its value then. It returns the name.
func (b *Builder) Default(t *Tensor) string {
	b.graph.Inputs = append(b.graph.Inputs, NewValue(t.Name, t.Type, t.Shape...))
	return b.Const(t)
}

// Output declares a value to be a graph output; -1 is a dynamic dimension.
func (b *Builder) Output(name string, t DataType, shape ...int64) {
	b.graph.Outputs = append(b.graph.Outputs, NewValue(name, t, shape...))
}

// Graph returns what has been assembled so far.
func (b *Builder) Graph(name string) *Graph {
	g := b.graph
	g.Name = name
	return &g
}

// Model wraps the graph into a model of the given version of the standard's operator set.
func (b *Builder) Model(opset int64) *Model {
	opsets := maps.Clone(b.root.domains)
	opsets[""] = opset
	return &Model{
		IRVersion:    irVersion(opset),
		Opsets:       opsets,
		ProducerName: "grindstone",
		Graph:        b.Graph("main"),
		err:          b.Err(),
	}
}

// irVersion is the oldest IR version that knows the operator set (https://onnx.ai/onnx/repo-docs/Versioning.html), at least 4, from
// which on initializers need not be inputs.
func irVersion(opset int64) int64 {
	switch {
	case opset <= 9:
		return 4
	case opset == 10:
		return 5
	case opset == 11:
		return 6
	case opset <= 14:
		return 7
	case opset <= 18:
		return 8
	case opset <= 20:
		return 9
	case opset <= 22:
		return 10
	}
	return 11
}

// I is an integer attribute.
func I(name string, v int64) *Attr { return &Attr{Name: name, Type: AttrInt, I: v} }

// Is is an attribute of integers.
func Is(name string, v ...int64) *Attr { return &Attr{Name: name, Type: AttrInts, Ints: v} }

// F is a float attribute.
func F(name string, v float32) *Attr { return &Attr{Name: name, Type: AttrFloat, F: v} }

// Fs is an attribute of floats.
func Fs(name string, v ...float32) *Attr { return &Attr{Name: name, Type: AttrFloats, Floats: v} }

// S is a string attribute.
func S(name, v string) *Attr { return &Attr{Name: name, Type: AttrString, S: []byte(v)} }

// G is a graph attribute: the body of a Loop, Scan or If.
func G(name string, g *Graph) *Attr { return &Attr{Name: name, Type: AttrGraph, Graph: g} }

// T is a tensor attribute.
func T(name string, t *Tensor) *Attr { return &Attr{Name: name, Type: AttrTensor, Tensor: t} }
