// Package grad differentiates ONNX graphs: a classifier's forward graph goes in, a graph of standard operators (opset 17) that also
// computes gradients comes out. Any ONNX Runtime execution provider runs it.
//
// Reverse mode, one rule per operator (see Rules). Rules are written over a static batch: every value's shape is known when the
// graph is built, so that broadcasting, padding and reshaping resolve to constants.
package grad

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"grindstone/sanitize/onnx"
)

// ErrNoRule means that a node lies between a trainable tensor and the loss, and its operator has no gradient rule.
var ErrNoRule = errors.New("operator has no gradient rule")

// Rule differentiates one operator.
type Rule struct {
	// Forward emits the operator's forward computation where it differs from the node itself, for instance to keep something for
	// the backward pass. Nil copies the node.
	Forward func(t *Tape, n *onnx.Node)

	// Backward returns the gradients of the node's inputs, "" for an input that needs none. dy holds the gradients of the node's
	// outputs, "" for an output that the loss does not depend on. A Tape's Needs tells which inputs are asked for; returning more
	// is allowed and wasteful.
	Backward func(t *Tape, n *onnx.Node, dy []string) []string

	// Flat, where it is set and true of a node, says that the operator is piecewise constant: its gradient is zero wherever it exists,
	// and none passes.
	Flat func(n *onnx.Node) bool

	// Refuse returns what it is about a node that Backward cannot do, "" if it can. Nil refuses nothing.
	Refuse func(n *onnx.Node) string

	// Note says for readers of docs/operators.md what the rule assumes or leaves out.
	Note string

	// AnyLayout says that the rule holds for activations in other layouts as well (see Layout): it treats all elements alike, or
	// takes axis 1 for the channels and all other axes alike.
	AnyLayout bool

	// Inner is the rule for activations with the batch innermost, nil where there is none.
	Inner *InnerRule
}

// InnerRule differentiates an operator whose activations have the batch innermost.
type InnerRule struct {
	// Choose returns the layout in which the node is best emitted, Plain if not by this rule. The output has this layout too if
	// KeepsLayout, else the plain one.
	Choose      func(t *Tape, n *onnx.Node) Layout
	KeepsLayout bool
	Forward     func(t *Tape, n *onnx.Node)
	Backward    func(t *Tape, n *onnx.Node, dy []string) []string
}

// Tape emits a forward graph and, from it, the backward graph. Names of values are those of the source graph; Ref translates them
// to the names in the emitted graph.
type Tape struct {
	B *onnx.Builder

	// Forms chooses among exact formulations of an operator's gradient.
	Forms Forms

	// Training holds the names of BatchNormalization outputs that use the batch's own statistics; all others use the running ones.
	Training map[string]bool

	// Kept holds the names of values that are read beside the nodes: whoever does must say so before Forward.
	Kept map[string]bool

	// Statistics lists, for every BatchNormalization in Training in emission order, what the running statistics are updated with.
	Statistics []BatchStatistics

	shapes    map[string][]int64
	constants map[string]*onnx.Tensor
	refs      map[placed]string
	native    map[string]Layout       // of values; Plain where missing
	layout    map[*onnx.Node]Layout   // that a node is emitted in
	weight    map[string]bool         // values that a Conv uses as its kernel
	producer  map[string]*onnx.Node   // of a value of the source graph
	readers   map[string][]*onnx.Node // of one
	current   Layout                  // of the node being emitted
	plain     bool                    // there are depthwise convolutions: their neighbours would change the layout at each
	outer     bool                    // the batch is small and Outer suits the whole network
	grads     map[string]string       // in the value's native layout
	parts     map[string][]part       // gradients of parts of values, not yet in grads
	needs     map[string]bool
	saved     map[string][]string
	batch     int64 // its size, and the name of a tensor that holds it; see OpenBatch
	batchName string
	pairs     map[*onnx.Node]*onnx.Node // a BatchNormalization and the Conv that is done with it, see normalized.go
	absorbed  map[*onnx.Node]bool       // these Convs
	centered  map[string]bool           // values that nothing reads but a BatchNormalization in training
	reshaped  map[string]string         // what reshape has emitted, and of what: of a reshape of a reshape, one is enough
}

// BatchStatistics are the emitted names of one BatchNormalization's batch mean and unbiased batch variance, both of shape [C].
type BatchStatistics struct {
	Node           *onnx.Node
	Mean, Variance string
}

// NewTape returns a tape that emits into b. Shapes gives the static shape of every value of the source graph, constants the tensors
// among them that are known when the graph is built.
func NewTape(b *onnx.Builder, shapes map[string][]int64, constants map[string]*onnx.Tensor) *Tape {
	return &Tape{
		B: b, shapes: shapes, constants: constants, Training: map[string]bool{}, Kept: map[string]bool{}, Forms: DefaultForms,
		refs: map[placed]string{}, native: map[string]Layout{}, layout: map[*onnx.Node]Layout{}, weight: map[string]bool{},
		producer: map[string]*onnx.Node{}, readers: map[string][]*onnx.Node{},
		grads: map[string]string{}, parts: map[string][]part{}, needs: map[string]bool{}, saved: map[string][]string{}, reshaped: map[string]string{},
	}
}

// Bind says that the source graph's value, in its native layout, is called emitted in the graph being built.
func (t *Tape) Bind(value, emitted string) { t.refs[placed{value, t.native[value]}] = emitted }

// Ref returns the emitted name of a source value, in the layout of the node being emitted.
func (t *Tape) Ref(value string) string { return t.refIn(value, t.layoutOf(value)) }

// refsOf is Ref of each; omitted values stay omitted.
func (t *Tape) refsOf(values []string) []string {
	refs := make([]string, len(values))
	for i, v := range values {
		if v != "" {
			refs[i] = t.Ref(v)
		}
	}
	return refs
}

// Shape returns the static shape of a source value, in the layout of the node being emitted.
func (t *Tape) Shape(value string) []int64 {
	s := t.shapes[value]
	switch t.layoutOf(value) {
	case Inner:
		return []int64{s[2] * s[3], s[1], s[0]}
	case Outer:
		return []int64{1, s[1], s[2] * s[3] * s[0]}
	}
	return s
}

// Ints returns the elements of a constant of the source graph, nil if the value is no integer constant.
func (t *Tape) Ints(value string) []int64 {
	if c := t.constants[value]; c != nil {
		return c.Ints()
	}
	return nil
}

// Needs reports whether the gradient of a source value is asked for.
func (t *Tape) Needs(value string) bool { return t.needs[value] }

// Save keeps emitted names under a source value, for the backward pass.
func (t *Tape) Save(value string, names ...string) { t.saved[value] = names }

// Saved returns what Save kept.
func (t *Tape) Saved(value string) []string { return t.saved[value] }

// Forward emits the nodes, given in topological order.
func (t *Tape) Forward(nodes []*onnx.Node) {
	defer func() { t.current = Plain }()
	t.pairUp(nodes)
	for _, n := range nodes {
		t.current = t.layout[n]
		r, ok := Rules[n.Op]
		switch {
		case t.absorbed[n]:
		case t.pairs[n] != nil:
			t.joinedForward(t.pairs[n], n)
		case ok && n.Domain == "" && t.current != Plain && r.Inner != nil:
			r.Inner.Forward(t, n)
		case ok && n.Domain == "" && r.Forward != nil:
			r.Forward(t, n)
		default:
			t.Copy(n, len(n.Outputs))
		}
	}
}

// Copy emits the node as it is, with the given number of outputs, and returns their emitted names.
func (t *Tape) Copy(n *onnx.Node, outputs int) []string {
	c := &onnx.Node{Op: n.Op, Domain: n.Domain, Inputs: t.refsOf(n.Inputs), Attrs: n.Recaptured(t.Ref)}
	for range outputs {
		c.Outputs = append(c.Outputs, t.B.Fresh(strings.ToLower(n.Op)))
	}
	t.B.Add(c)
	out := c.Outputs
	for i, name := range n.Outputs {
		if i < outputs && name != "" {
			t.Bind(name, out[i])
		}
	}
	return out
}

// Backward emits the gradients of the wanted source values, given the emitted gradients of some values (the seeds, in the plain
// layout), and returns the emitted names. They are in the value's native layout. A wanted value that no seed depends on is missing
// from the result. Forward must have emitted the same nodes.
func (t *Tape) Backward(nodes []*onnx.Node, seeds map[string]string, wanted []string) (map[string]string, error) {
	defer func() { t.current = Plain }()
	t.needs = reach(nodes, wanted, passesNoGradient)
	for _, value := range slices.Sorted(maps.Keys(seeds)) {
		t.accumulate(value, seeds[value], Plain)
	}
	for _, n := range slices.Backward(nodes) {
		if !anyIn(reads(n), t.needs) {
			continue
		}
		dy, seen := make([]string, len(n.Outputs)), false
		for i, out := range n.Outputs {
			dy[i] = t.gradient(out)
			seen = seen || dy[i] != ""
		}
		if !seen {
			continue
		}
		r, err := ruleOf(n)
		if err != nil {
			return nil, err
		}
		if r.flat(n) {
			continue
		}
		t.current = t.layout[n]
		backward := r.Backward
		if t.current != Plain && r.Inner != nil {
			backward = r.Inner.Backward
		}
		if conv := t.pairs[n]; conv != nil {
			ofConv, ofNorm := t.joinedGrad(conv, n, dy[0])
			t.collect(conv, ofConv)
			t.collect(n, ofNorm)
			continue
		}
		t.collect(n, backward(t, n, dy))
	}
	out := map[string]string{}
	for _, w := range wanted {
		if g := t.gradient(w); g != "" {
			out[w] = g
		}
	}
	return out, nil
}

// collect accumulates the gradients of a node's inputs that are asked for.
func (t *Tape) collect(n *onnx.Node, grads []string) {
	for i, g := range grads {
		if in := n.Inputs[i]; g != "" && in != "" && t.needs[in] {
			t.accumulate(in, g, t.layoutOf(in))
		}
	}
}

// accumulate adds a gradient that is in the given layout to what the value already has.
func (t *Tape) accumulate(value, g string, from Layout) {
	g = t.convert(g, t.shapes[value], from, t.native[value])
	if have := t.grads[value]; have != "" {
		g = t.B.Op("Add", []string{have, g})
	}
	t.grads[value] = g
}

// Reach returns the values that depend on the elements of any of the given ones, these included. What depends on their shape alone
// (PyTorch writes x.view(x.size(0), -1) as arithmetic on Shape) or on their type (weights are cast like the data that they meet) does not.
func Reach(nodes []*onnx.Node, from []string) map[string]bool { return reach(nodes, from, readsShape) }

func reach(nodes []*onnx.Node, from []string, stops func(*onnx.Node) bool) map[string]bool {
	reached := map[string]bool{}
	for _, v := range from {
		reached[v] = true
	}
	for _, n := range nodes {
		if stops(n) || !anyIn(reads(n), reached) {
			continue
		}
		for _, out := range n.Outputs {
			if out != "" {
				reached[out] = true
			}
		}
	}
	return reached
}

// reads are the inputs whose elements a node's outputs depend on.
func reads(n *onnx.Node) []string {
	if n.Op == "CastLike" && n.Domain == "" && len(n.Inputs) > 1 {
		return n.Inputs[:1]
	}
	return n.Reads()
}

func readsShape(n *onnx.Node) bool { return n.Domain == "" && (n.Op == "Shape" || n.Op == "Size") }

// passesNoGradient: the node's outputs are constant between the points where they jump.
func passesNoGradient(n *onnx.Node) bool { return n.Domain == "" && Rules[n.Op].flat(n) }

func (r Rule) flat(n *onnx.Node) bool { return r.Flat != nil && r.Flat(n) }

// ruleOf returns a node's rule, or why there is none.
func ruleOf(n *onnx.Node) (Rule, error) {
	r, ok := Rules[n.Op]
	switch {
	case !ok || n.Domain != "":
		return Rule{}, &onnx.Error{Node: n.Label(), What: n.Op, Err: ErrNoRule}
	case r.Refuse != nil && r.Refuse(n) != "":
		return Rule{}, &onnx.Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w with %s", ErrNoRule, r.Refuse(n))}
	}
	return r, nil
}

// Check returns nil if gradients can pass a node, else an error that wraps ErrNoRule and says why not.
func Check(n *onnx.Node) error {
	if passesNoGradient(n) {
		return &onnx.Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w, being piecewise constant: what is below would not be trained", ErrNoRule)}
	}
	_, err := ruleOf(n)
	return err
}

// Unsupported returns, in graph order, the nodes that keep gradients of the output from the given values: those between them that Check has
// something against. Piecewise constant ones are in the way only of a value that has no other way to the output.
func Unsupported(nodes []*onnx.Node, from []string, output string) []*onnx.Node {
	leads := map[string]bool{output: true} // values on whose elements the output depends, jumps aside
	for _, n := range slices.Backward(nodes) {
		if !passesNoGradient(n) && anyIn(n.Outputs, leads) {
			for _, in := range reads(n) {
				leads[in] = true
			}
		}
	}
	cut := slices.DeleteFunc(slices.Clone(from), func(v string) bool { return leads[v] })
	reached, behind := reach(nodes, from, passesNoGradient), Reach(nodes, cut)
	var bad []*onnx.Node
	for _, n := range nodes {
		switch {
		case !anyIn(n.Outputs, leads):
		case passesNoGradient(n) && !readsShape(n) && anyIn(reads(n), behind), !passesNoGradient(n) && anyIn(n.Outputs, reached) && Check(n) != nil:
			bad = append(bad, n)
		}
	}
	return bad
}

func anyIn(names []string, set map[string]bool) bool {
	return slices.ContainsFunc(names, func(name string) bool { return name != "" && set[name] })
}
