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
	if err := knownVersion(version); err != nil {
		return nil, &Error{What: "opset_import", Err: err}
	}
	fs, err := functionsOf(m)
	if err != nil {
		return nil, err
	}
	u := newUpgrade(m.Graph)
	u.model, u.version, u.functions = m, version, fs
	return u.graph, u.add(m.Graph.Nodes)
}

func knownVersion(version int64) error {
	switch {
	case version < 7:
		return fmt.Errorf("%w: version %d, at least 7 is needed", ErrOperatorSet, version)
	case version > Newest:
		return fmt.Errorf("%w: version %d, at most %d is known", ErrOperatorSet, version, Newest)
	}
	return nil
}

// add appends nodes to the graph in terms of opset 17.
func (u *upgrade) add(nodes []*Node) error {
	if err := checkHazards(nodes); err != nil {
		return err
	}
	for _, n := range nodes {
		if u.root().added++; u.root().added > maxMessages {
			return fmt.Errorf("%w: functions call one another more than %d times", ErrLimit, maxMessages)
		}
		if called, err := u.call(n); called {
			if err != nil {
				return err
			}
			continue
		}
		if n.Domain == "ai.onnx" {
			standard := *n
			standard.Domain = ""
			n = &standard
		}
		if err := checkArity(n); err != nil {
			return &Error{Node: n.Label(), What: n.Op, Err: err}
		}
		if n.Domain == "" && n.Op == "Constant" && !u.returns(n) {
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
		if own, known := contributed[n.Op]; known && n.Domain == Contrib {
			changed, err = own.spell(u, n)
		}
		if err == nil {
			changed, err = u.bodies(changed)
		}
		if err != nil {
			return &Error{Node: n.Label(), What: n.Op, Err: refused(err)}
		}
		n = changed
		if t := u.fold(n); t != nil && !u.returns(n) {
			u.graph.Initializers = append(u.graph.Initializers, t)
			continue
		}
		u.graph.Nodes = append(u.graph.Nodes, n)
	}
	return nil
}

// bodies returns a node with its subgraphs in terms of opset 17.
func (u *upgrade) bodies(n *Node) (*Node, error) {
	if !slices.ContainsFunc(n.Attrs, func(a *Attr) bool { return a.Graph != nil }) {
		return n, nil
	}
	c := n.replace(n.Inputs)
	for i, a := range c.Attrs {
		if a.Graph == nil {
			continue
		}
		body := newUpgrade(a.Graph)
		body.model, body.version, body.functions, body.depth, body.outer, body.own = u.model, u.version, u.functions, u.depth, u, map[string]bool{}
		for _, v := range a.Graph.Inputs {
			body.own[v.Name] = true
		}
		for _, inner := range a.Graph.Nodes {
			for _, out := range inner.Outputs {
				body.own[out] = true
			}
		}
		if err := body.add(a.Graph.Nodes); err != nil {
			return nil, err
		}
		c.Attrs[i] = G(a.Name, body.graph)
	}
	return c, nil
}

// returns reports whether a node of a subgraph makes an output of it, which the runtime wants from a node.
func (u *upgrade) returns(n *Node) bool {
	return u.outer != nil && slices.ContainsFunc(u.graph.Outputs, func(v *Value) bool { return v.Name == n.Output(0) })
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
	model     *Model
	functions functions
	outer     *upgrade        // of a subgraph: the graph around it
	own       map[string]bool // of a subgraph: values that it makes or is given
	graph     *Graph          // as far as it is made
	version   int64           // of the operators at hand: the model's, or a function's own
	depth     int             // of calls
	made      int             // names; of all graphs in that of the outermost
	added     int             // nodes and calls; likewise: a few functions can call one another very often

	constants map[string]*Tensor // of the graph's initializers, the first so many
	indexed   int
	sequences map[string]*Node  // by what they make, the SplitToSequence nodes so far
	said      map[string]*Value // what the file says of values, where it says a shape
	ranks     map[string]int    // of what the graph's nodes make, the first so many
	computed  map[string]bool   // likewise: of constants alone
	noted     int
}

func newUpgrade(g *Graph) *upgrade {
	u := &upgrade{
		graph:     &Graph{Name: g.Name, Initializers: slices.Clone(g.Initializers), Inputs: g.Inputs, Outputs: g.Outputs, Values: g.Values},
		constants: map[string]*Tensor{}, sequences: map[string]*Node{}, said: map[string]*Value{}, ranks: map[string]int{}, computed: map[string]bool{},
	}
	for _, v := range slices.Concat(g.Values, g.Outputs, g.Inputs) {
		if v.Shape != nil {
			u.said[v.Name] = v
		}
	}
	return u
}

func (u *upgrade) root() *upgrade {
	for u.outer != nil {
		u = u.outer
	}
	return u
}

// initializer returns the initializer of that name, of this graph or one around it, or nil.
func (u *upgrade) initializer(name string) *Tensor {
	for ; u.indexed < len(u.graph.Initializers); u.indexed++ {
		if t := u.graph.Initializers[u.indexed]; u.constants[t.Name] == nil {
			u.constants[t.Name] = t
		}
	}
	if t := u.constants[name]; t != nil || u.outer == nil || u.own[name] {
		return t
	}
	return u.outer.initializer(name)
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
	u.root().made++
	return fmt.Sprintf("%s/%s_%d", value, what, u.root().made)
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
