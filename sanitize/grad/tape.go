// Package grad differentiates ONNX graphs: a classifier's forward graph goes in, a graph of standard operators (opset 17) that also
// computes gradients comes out. Any ONNX Runtime execution provider runs it.
//
// Reverse mode, one rule per operator (see Rules). Rules are written over a static batch: every value's shape is known when the
// graph is built, so that broadcasting, padding and reshaping resolve to constants.
package grad

import (
	"errors"
	"slices"

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
}

// Tape emits a forward graph and, from it, the backward graph. Names of values are those of the source graph; Ref translates them
// to the names in the emitted graph.
type Tape struct {
	B *onnx.Builder

	// Forms chooses among exact formulations of an operator's gradient.
	Forms Forms

	// Training holds the names of BatchNormalization outputs that use the batch's own statistics; all others use the running ones.
	Training map[string]bool

	// Statistics lists, for every BatchNormalization in Training in emission order, what the running statistics are updated with.
	Statistics []BatchStatistics

	shapes    map[string][]int64
	constants map[string]*onnx.Tensor
	ref       map[string]string
	grads     map[string]string
	needs     map[string]bool
	saved     map[string][]string
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
		B: b, shapes: shapes, constants: constants, Training: map[string]bool{}, Forms: DefaultForms,
		ref: map[string]string{}, grads: map[string]string{}, needs: map[string]bool{}, saved: map[string][]string{},
	}
}

// Bind says that the source graph's value is called emitted in the graph being built.
func (t *Tape) Bind(value, emitted string) { t.ref[value] = emitted }

// Ref returns the emitted name of a source value.
func (t *Tape) Ref(value string) string {
	if name, ok := t.ref[value]; ok {
		return name
	}
	return value
}

// Shape returns the static shape of a source value.
func (t *Tape) Shape(value string) []int64 { return t.shapes[value] }

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
	for _, n := range nodes {
		if r, ok := Rules[n.Op]; ok && n.Domain == "" && r.Forward != nil {
			r.Forward(t, n)
			continue
		}
		t.Copy(n, len(n.Outputs))
	}
}

// Copy emits the node as it is, with the given number of outputs, and returns their emitted names.
func (t *Tape) Copy(n *onnx.Node, outputs int) []string {
	in := make([]string, len(n.Inputs))
	for i, name := range n.Inputs {
		if name != "" {
			in[i] = t.Ref(name)
		}
	}
	out := t.B.OpN(n.Op, outputs, in, n.Attrs...)
	for i, name := range n.Outputs {
		if i < outputs && name != "" {
			t.Bind(name, out[i])
		}
	}
	return out
}

// Backward emits the gradients of the wanted source values, given the emitted gradients of some values (the seeds), and returns the
// emitted names. A wanted value that no seed depends on is missing from the result. Forward must have emitted the same nodes.
func (t *Tape) Backward(nodes []*onnx.Node, seeds map[string]string, wanted []string) (map[string]string, error) {
	t.needs = Reach(nodes, wanted)
	for value, g := range seeds {
		t.accumulate(value, g)
	}
	for _, n := range slices.Backward(nodes) {
		if !t.anyNeeded(n) {
			continue
		}
		dy, seen := make([]string, len(n.Outputs)), false
		for i, out := range n.Outputs {
			dy[i] = t.grads[out]
			seen = seen || dy[i] != ""
		}
		if !seen {
			continue
		}
		r, ok := Rules[n.Op]
		if !ok || n.Domain != "" {
			return nil, &onnx.Error{Node: n.Label(), What: n.Op, Err: ErrNoRule}
		}
		for i, g := range r.Backward(t, n, dy) {
			if g != "" && n.Inputs[i] != "" && t.needs[n.Inputs[i]] {
				t.accumulate(n.Inputs[i], g)
			}
		}
	}
	out := map[string]string{}
	for _, w := range wanted {
		if g := t.grads[w]; g != "" {
			out[w] = g
		}
	}
	return out, nil
}

func (t *Tape) accumulate(value, g string) {
	if have := t.grads[value]; have != "" {
		g = t.B.Op("Add", []string{have, g})
	}
	t.grads[value] = g
}

func (t *Tape) anyNeeded(n *onnx.Node) bool {
	return slices.ContainsFunc(n.Inputs, func(in string) bool { return in != "" && t.needs[in] })
}

// Reach returns the values that depend on the elements of any of the given ones, these included. What depends on their shape alone
// (PyTorch writes x.view(x.size(0), -1) as arithmetic on Shape) has no gradient and needs none.
func Reach(nodes []*onnx.Node, from []string) map[string]bool {
	reach := map[string]bool{}
	for _, v := range from {
		reach[v] = true
	}
	for _, n := range nodes {
		if readsShape(n) || !slices.ContainsFunc(n.Inputs, func(in string) bool { return in != "" && reach[in] }) {
			continue
		}
		for _, out := range n.Outputs {
			if out != "" {
				reach[out] = true
			}
		}
	}
	return reach
}

func readsShape(n *onnx.Node) bool { return n.Domain == "" && (n.Op == "Shape" || n.Op == "Size") }

// Unsupported returns the nodes without a rule that lie between the given values and the output, in graph order.
func Unsupported(nodes []*onnx.Node, from []string, output string) []*onnx.Node {
	reach := Reach(nodes, from)
	leads := map[string]bool{output: true}
	var bad []*onnx.Node
	for _, n := range slices.Backward(nodes) {
		if readsShape(n) || !slices.ContainsFunc(n.Outputs, func(out string) bool { return leads[out] }) {
			continue
		}
		for _, in := range n.Inputs {
			leads[in] = true
		}
		_, ok := Rules[n.Op]
		if slices.ContainsFunc(n.Outputs, func(out string) bool { return out != "" && reach[out] }) && (!ok || n.Domain != "") {
			bad = append(bad, n)
		}
	}
	slices.Reverse(bad)
	return bad
}
