package onnx

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Opset is the version of the standard operators that Normalize brings a graph to and that all built graphs use. Later versions of
// some operators have no CUDA kernel and would fall back to the CPU.
const Opset = 17

// ErrOperatorSet means that a model uses a version of the operators that cannot be brought to Opset.
var ErrOperatorSet = errors.New("unsupported operator set")

// Normalize returns the model's graph in terms of opset 17: calls of the model's own functions are replaced by their nodes, and an If with a
// constant condition by those of its branch; Constant nodes become initializers, arguments that were attributes become inputs, what training
// does not need (Dropout) becomes Identity, integers that are only moved become constants, and later operators are spelled out in those of
// opset 17 (see Upgrades).
// The model is not changed; unchanged nodes are shared.
func Normalize(m *Model) (*Graph, error) {
	version, ok := m.Opsets[""]
	if !ok {
		version = m.Opsets["ai.onnx"]
	}
	if version < 7 {
		return nil, &Error{What: "opset_import", Err: fmt.Errorf("%w: version %d, at least 7 is needed", ErrOperatorSet, version)}
	}
	if version > Newest {
		return nil, &Error{What: "opset_import", Err: fmt.Errorf("%w: version %d, at most %d is known", ErrOperatorSet, version, Newest)}
	}
	g := &Graph{Name: m.Graph.Name, Initializers: slices.Clone(m.Graph.Initializers), Inputs: m.Graph.Inputs, Outputs: m.Graph.Outputs, Values: m.Graph.Values}
	u := &upgrade{model: m, graph: g, version: version, constants: map[string]*Tensor{}, sequences: map[string]*Node{}}
	nodes, err := inline(m, version)
	if err != nil {
		return nil, err
	}
	if err := checkHazards(nodes); err != nil {
		return nil, err
	}
	return g, u.add(nodes)
}

// add appends nodes to the graph in terms of opset 17.
func (u *upgrade) add(nodes []*Node) error {
	for _, n := range nodes {
		if n.Domain == "ai.onnx" {
			standard := *n
			standard.Domain = ""
			n = &standard
		}
		if n.Domain == "" && n.Op == "Constant" {
			if t := constantValue(n); t != nil {
				u.graph.Initializers = append(u.graph.Initializers, t)
				continue
			}
		}
		taken, ok, err := u.branch(n)
		if ok {
			if err := u.add(taken); err != nil {
				return err
			}
			continue
		}
		changed := n
		if up, known := upgrades[n.Op]; known && n.Domain == "" && err == nil {
			changed, err = up.apply(u, n)
		}
		if err != nil {
			return &Error{Node: n.Label(), What: n.Op, Err: refused(err)}
		}
		n = changed
		if t := u.fold(n); t != nil {
			u.graph.Initializers = append(u.graph.Initializers, t)
			continue
		}
		u.graph.Nodes = append(u.graph.Nodes, n)
	}
	return nil
}

// refused says of an error that gives a reason alone that the model is not supported.
func refused(err error) error {
	if errors.Is(err, ErrMalformed) || errors.Is(err, ErrUnsupported) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnsupported, err)
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

	constants map[string]*Tensor // of the graph's initializers, the first so many
	indexed   int
	sequences map[string]*Node // by what they make, the SplitToSequence nodes so far
}

// initializer returns the initializer of that name, or nil.
func (u *upgrade) initializer(name string) *Tensor {
	for ; u.indexed < len(u.graph.Initializers); u.indexed++ {
		if t := u.graph.Initializers[u.indexed]; u.constants[t.Name] == nil {
			u.constants[t.Name] = t
		}
	}
	return u.constants[name]
}

// step brings a node of one operator to opset 17: it appends what must come before to the graph and returns the node that makes the
// outputs. The note says for readers what differs between versions.
type step struct {
	apply func(u *upgrade, n *Node) (*Node, error)
	note  string
}

// Upgrades says by operator what Normalize does to it.
func Upgrades() map[string]string {
	notes := map[string]string{}
	for op, up := range upgrades {
		notes[op] = up.note
	}
	return notes
}

var upgrades = map[string]step{}

func init() {
	for _, family := range []map[string]step{argumentUpgrades, compositions} {
		maps.Copy(upgrades, family)
	}
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

// op appends a node that computes something about n, and returns the name of its output.
func (u *upgrade) op(n *Node, op string, in []string, attrs ...*Attr) string {
	out := u.fresh(n.Output(0), strings.ToLower(op))
	u.graph.Nodes = append(u.graph.Nodes, &Node{Name: n.Label() + "/" + out, Op: op, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

// last is the node that makes n's output.
func (n *Node) last(op string, in []string, attrs ...*Attr) (*Node, error) {
	return &Node{Name: n.Name, Op: op, Inputs: in, Outputs: n.Outputs[:1], Attrs: attrs}, nil
}

// rank of a value, as far as the file says it; -1 if not.
func (u *upgrade) rank(value string) int {
	if t := u.initializer(value); t != nil {
		return len(t.Shape)
	}
	if v := u.graph.Value(value); v != nil && v.Shape != nil {
		return len(v.Shape)
	}
	return -1
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
