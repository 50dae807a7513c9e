package onnx

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// function reads a FunctionProto.
func (d *decoder) function(fn *Function, f field) error {
	if err := f.is(protowire.BytesType); err != nil {
		return err
	}
	d.inside = true
	defer func() { d.inside = false }()
	err := fields(f.body, func(f field) error {
		switch f.num {
		case 1:
			return f.string(&fn.Name)
		case 4:
			return appendString(&fn.Inputs, f)
		case 5:
			return appendString(&fn.Outputs, f)
		case 6:
			return appendString(&fn.Attrs, f)
		case 7:
			n := &Node{}
			fn.Nodes = append(fn.Nodes, n)
			return d.node(n, f)
		case 9:
			return d.opset(fn.Opsets, f)
		case 10:
			return f.string(&fn.Domain)
		case 11:
			a := &Attr{}
			fn.Defaults = append(fn.Defaults, a)
			return d.attr(a, f)
		case 13:
			return f.string(&fn.Overload)
		}
		return nil
	})
	fn.Domain = standardDomain(fn.Domain)
	if err != nil {
		return &Error{What: "function " + fn.Name, Err: err}
	}
	return nil
}

// inline returns the nodes of the model's graph with each call of one of its functions replaced by the function's nodes (ONNX IR, section
// "Functions"). Inner values get the name of the call's first output before their own.
func inline(m *Model, version int64) ([]*Node, error) {
	if len(m.Functions) == 0 {
		return m.Graph.Nodes, nil
	}
	in := &inliner{version: version, functions: map[[3]string]*Function{}}
	for _, f := range m.Functions {
		id := [3]string{f.Domain, f.Name, f.Overload}
		if in.functions[id] != nil {
			return nil, &Error{What: "function " + f.Name, Err: malformed("it is defined twice")}
		}
		in.functions[id] = f
	}
	err := in.add(m.Graph.Nodes, 0)
	return in.nodes, err
}

type inliner struct {
	version   int64 // of the standard operators in the graph
	functions map[[3]string]*Function
	nodes     []*Node
	visited   int // nodes and calls: a few functions can call one another very often
}

func (in *inliner) add(nodes []*Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: functions call one another more than %d deep", ErrLimit, maxDepth)
	}
	for _, n := range nodes {
		if in.visited++; in.visited > maxMessages {
			return fmt.Errorf("%w: functions call one another more than %d times", ErrLimit, maxMessages)
		}
		f := in.functions[[3]string{n.Domain, n.Op, n.Overload}]
		if f == nil {
			in.nodes = append(in.nodes, n)
			continue
		}
		body, err := in.expand(f, n)
		if err == nil {
			err = in.add(body, depth+1)
		}
		if err != nil {
			return &Error{Node: n.Label(), What: "function " + f.Name, Err: err}
		}
	}
	return nil
}

// expand returns a function's nodes with the call's values and attributes in place of its own.
func (in *inliner) expand(f *Function, call *Node) ([]*Node, error) {
	if v, ok := f.Opsets[""]; ok && v != in.version {
		return nil, fmt.Errorf("%w: it is written in version %d, the graph in %d", ErrOperatorSet, v, in.version)
	}
	if len(call.Inputs) > len(f.Inputs) || len(call.Outputs) > len(f.Outputs) {
		return nil, malformed("%d inputs and %d outputs for a function of %d and %d", len(call.Inputs), len(call.Outputs), len(f.Inputs), len(f.Outputs))
	}
	prefix := call.Name
	for _, out := range call.Outputs {
		if out != "" { // unlike a node's name, it cannot occur twice
			prefix = out
			break
		}
	}
	name := map[string]string{"": ""}
	for i, inner := range f.Inputs {
		name[inner] = call.Input(i)
	}
	for i, inner := range f.Outputs {
		if out := call.Output(i); out != "" {
			if _, taken := name[inner]; taken {
				return nil, malformed("output %q is an input, or given twice", inner)
			}
			name[inner] = out
		}
	}
	rename := func(inner []string) []string {
		out := make([]string, len(inner))
		for i, s := range inner {
			if _, known := name[s]; !known {
				name[s] = prefix + "/" + s
			}
			out[i] = name[s]
		}
		return out
	}
	var nodes []*Node
	for _, inner := range f.Nodes {
		n := &Node{Name: prefix + "/" + inner.Name, Op: inner.Op, Domain: inner.Domain, Overload: inner.Overload, Inputs: rename(inner.Inputs), Outputs: rename(inner.Outputs)}
		for _, a := range inner.Attrs {
			if a.Graph != nil {
				return nil, fmt.Errorf("%w: control flow (%s) in a function", ErrUnsupported, inner.Op)
			}
			if a.Tensor != nil && a.Tensor.External != nil {
				return nil, fmt.Errorf("%w: a constant of a function in another file", ErrUnsupported)
			}
			if a.Ref != "" {
				given := f.attr(call, a.Ref)
				if given == nil {
					continue // left out by the call: the operator's own default
				}
				value := *given
				value.Name = a.Name
				a = &value
			}
			n.Attrs = append(n.Attrs, a)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// attr is the value of an attribute in a call.
func (f *Function) attr(call *Node, name string) *Attr {
	if a := call.Attr(name); a != nil {
		return a
	}
	for _, a := range f.Defaults {
		if a.Name == name {
			return a
		}
	}
	return nil
}
