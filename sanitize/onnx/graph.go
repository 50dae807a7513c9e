package onnx

import (
	"fmt"
	"slices"
)

// Producer maps each value of the graph to the node that computes it.
func (g *Graph) Producer() map[string]*Node {
	m := map[string]*Node{}
	for _, n := range g.Nodes {
		for _, out := range n.Outputs {
			if out != "" {
				m[out] = n
			}
		}
	}
	return m
}

// Consumers maps each value to the nodes that read it, in graph order and once each, also from within their subgraphs.
func (g *Graph) Consumers() map[string][]*Node {
	m := map[string][]*Node{}
	for _, n := range g.Nodes {
		seen := map[string]bool{"": true}
		for _, in := range n.Reads() {
			if !seen[in] {
				seen[in] = true
				m[in] = append(m[in], n)
			}
		}
	}
	return m
}

// Initializer returns the initializer of that name, or nil.
func (g *Graph) Initializer(name string) *Tensor {
	for _, t := range g.Initializers {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Find returns the node that computes the value of that name, or nil.
func (g *Graph) Find(output string) *Node {
	for _, n := range g.Nodes {
		for _, out := range n.Outputs {
			if out == output && out != "" {
				return n
			}
		}
	}
	return nil
}

// Value returns what the file says about the value of that name as input, output or inner value, or nil.
func (g *Graph) Value(name string) *Value {
	for _, list := range [][]*Value{g.Inputs, g.Outputs, g.Values} {
		for _, v := range list {
			if v.Name == name {
				return v
			}
		}
	}
	return nil
}

// DataInputs are the graph inputs that a caller must feed: those without an initializer. (Before IR version 4 every initializer was
// listed among the inputs as well.)
func (g *Graph) DataInputs() []*Value {
	given := map[string]bool{}
	for _, t := range g.Initializers {
		given[t.Name] = true
	}
	var inputs []*Value
	for _, v := range g.Inputs {
		if !given[v.Name] {
			inputs = append(inputs, v)
		}
	}
	return inputs
}

// eachTensor visits initializers and tensor attributes, those of subgraphs included.
func (g *Graph) eachTensor(visit func(*Tensor)) {
	for _, t := range g.Initializers {
		visit(t)
	}
	for _, n := range g.Nodes {
		for _, a := range n.Attrs {
			if a.Tensor != nil {
				visit(a.Tensor)
			}
			if a.Graph != nil {
				a.Graph.eachTensor(visit)
			}
		}
	}
}

// Captures are the values of outer graphs that the node's subgraphs read, once each.
func (n *Node) Captures() []string {
	var names []string
	seen := map[string]bool{}
	for _, a := range n.Attrs {
		if a.Graph == nil {
			continue
		}
		inner := map[string]bool{"": true}
		for _, v := range a.Graph.Inputs {
			inner[v.Name] = true
		}
		for _, t := range a.Graph.Initializers {
			inner[t.Name] = true
		}
		read := func(in string) {
			if !inner[in] && !seen[in] {
				seen[in] = true
				names = append(names, in)
			}
		}
		for _, m := range a.Graph.Nodes {
			for _, in := range append(m.Captures(), m.Inputs...) {
				read(in)
			}
			for _, out := range m.Outputs {
				inner[out] = true
			}
		}
		for _, v := range a.Graph.Outputs {
			read(v.Name)
		}
	}
	return names
}

// Reads are all values that the node depends on: its inputs and what its subgraphs read.
func (n *Node) Reads() []string { return append(n.Captures(), n.Inputs...) }

// Recaptured returns the node's attributes with other names for the values of outer graphs that its subgraphs read.
func (n *Node) Recaptured(name func(string) string) []*Attr {
	attrs := slices.Clone(n.Attrs)
	for i, a := range attrs {
		if a.Graph == nil {
			continue
		}
		captured := (&Node{Attrs: attrs[i : i+1]}).Captures()
		outer := func(in string) string {
			if slices.Contains(captured, in) {
				return name(in)
			}
			return in
		}
		body := *a.Graph
		body.Nodes, body.Outputs = nil, nil
		for _, inner := range a.Graph.Nodes {
			c := *inner
			c.Inputs = nil
			for _, in := range inner.Inputs {
				c.Inputs = append(c.Inputs, outer(in))
			}
			c.Attrs = inner.Recaptured(outer)
			body.Nodes = append(body.Nodes, &c)
		}
		for _, v := range a.Graph.Outputs {
			c := *v
			c.Name = outer(v.Name)
			body.Outputs = append(body.Outputs, &c)
		}
		attrs[i] = G(a.Name, &body)
	}
	return attrs
}

// Label names the node in messages: by name, else by operator and first output.
func (n *Node) Label() string {
	if n.Name != "" {
		return n.Name
	}
	if len(n.Outputs) > 0 {
		return fmt.Sprintf("%s -> %s", n.Op, n.Outputs[0])
	}
	return n.Op
}

// Input returns input i, or "" when it is omitted.
func (n *Node) Input(i int) string {
	if i < len(n.Inputs) {
		return n.Inputs[i]
	}
	return ""
}

// Output returns output i, or "" when it is omitted.
func (n *Node) Output(i int) string {
	if i < len(n.Outputs) {
		return n.Outputs[i]
	}
	return ""
}

// Attr returns the attribute of that name, or nil.
func (n *Node) Attr(name string) *Attr {
	for _, a := range n.Attrs {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func (n *Node) typed(name string, t AttrType) *Attr {
	if a := n.Attr(name); a != nil && a.Type == t {
		return a
	}
	return nil
}

// Int returns an integer attribute, or def where the node has none.
func (n *Node) Int(name string, def int64) int64 {
	if a := n.typed(name, AttrInt); a != nil {
		return a.I
	}
	return def
}

// Ints returns a list of integers, or def where the node has none.
func (n *Node) Ints(name string, def ...int64) []int64 {
	if a := n.typed(name, AttrInts); a != nil {
		return a.Ints
	}
	return def
}

// Float returns a float attribute, or def where the node has none.
func (n *Node) Float(name string, def float32) float32 {
	if a := n.typed(name, AttrFloat); a != nil {
		return a.F
	}
	return def
}

// String returns a string attribute, or def where the node has none.
func (n *Node) String(name, def string) string {
	if a := n.typed(name, AttrString); a != nil {
		return string(a.S)
	}
	return def
}

// NewValue describes a tensor; a dimension of -1 is dynamic.
func NewValue(name string, t DataType, shape ...int64) *Value {
	v := &Value{Name: name, Type: t, Shape: []Dim{}}
	for _, d := range shape {
		v.Shape = append(v.Shape, Dim{Size: max(d, -1)})
	}
	return v
}

// Sizes are the dimensions, -1 for dynamic ones; nil when the rank is unknown.
func (v *Value) Sizes() []int64 {
	if v.Shape == nil {
		return nil
	}
	sizes := make([]int64, len(v.Shape))
	for i, d := range v.Shape {
		sizes[i] = d.Size
	}
	return sizes
}

// Fixed tells whether rank and all dimensions are known.
func (v *Value) Fixed() bool {
	for _, d := range v.Shape {
		if d.Size < 0 {
			return false
		}
	}
	return v.Shape != nil
}
