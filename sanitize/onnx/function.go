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

// functions are a model's own by what a call of them says: domain, name, overload.
type functions map[[3]string]*Function

func functionsOf(m *Model) (functions, error) {
	fs := functions{}
	for _, f := range m.Functions {
		id := [3]string{f.Domain, f.Name, f.Overload}
		if fs[id] != nil {
			return nil, &Error{What: "function " + f.Name, Err: malformed("it is defined twice")}
		}
		fs[id] = f
	}
	return fs, nil
}

// call appends the nodes of the function that a node calls (ONNX IR, section "Functions"); ok is false for a node that calls none. Inner values get
// the name of the call's first output before their own.
func (u *upgrade) call(n *Node) (ok bool, err error) {
	f := u.functions[[3]string{n.Domain, n.Op, n.Overload}]
	if f == nil {
		return false, nil
	}
	defer func() { u.depth-- }()
	if u.depth++; u.depth > maxDepth {
		return true, fmt.Errorf("%w: functions call one another more than %d deep", ErrLimit, maxDepth)
	}
	var body []*Node
	if err = u.checkVersion(f); err == nil {
		body, err = expand(f, n)
	}
	if err == nil {
		err = u.add(body)
	}
	if err != nil {
		return true, &Error{Node: n.Label(), What: "function " + f.Name, Err: err}
	}
	return true, nil
}

// checkVersion refuses a function that is written in another version of the operators than the graph and uses one that differs between the two: the
// standard rules that out, and runtimes take the graph's version for it.
func (u *upgrade) checkVersion(f *Function) error {
	version, told := f.Opsets[""]
	if !told || version == u.version {
		return nil
	}
	for _, n := range f.Nodes {
		if _, changes := upgrades[n.Op]; changes && n.Domain == "" && since(n.Op, version) != since(n.Op, u.version) {
			return fmt.Errorf("%w: it is written in version %d, the graph in %d, and %s differs between them", ErrOperatorSet, version, u.version, n.Op)
		}
	}
	return nil
}

// since is the version of an operator that a version of the operators has.
func since(op string, version int64) (latest int64) {
	for _, v := range versions[op] {
		if v <= version {
			latest = v
		}
	}
	return latest
}

// expand returns a function's nodes with the call's values and attributes in place of its own.
func expand(f *Function, call *Node) ([]*Node, error) {
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
		n := &Node{Name: within(prefix, inner.Name), Op: inner.Op, Domain: inner.Domain, Overload: inner.Overload, Inputs: rename(inner.Inputs), Outputs: rename(inner.Outputs)}
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

// within is the name of a node that comes from a body; one without a name stays so, since two of a name are none to the runtime.
func within(prefix, name string) string {
	if name == "" {
		return ""
	}
	return prefix + "/" + name
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
