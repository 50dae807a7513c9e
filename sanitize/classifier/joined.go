package classifier

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// joins are the operators in which a constant can meet an activation and be part of what the network has learned: position embeddings and
// biases of attention (Add), class tokens (Concat), scales of normalizations and residual branches (Mul, Div), and so on.
var joins = map[string]bool{
	"Add": true, "Sub": true, "Mul": true, "Div": true, "Sum": true, "Mean": true, "Max": true, "Min": true, "Pow": true, "Mod": true,
	"Concat": true, "Einsum": true, "Where": true,
}

// selects are the operators that take the elements of their first input to other places, once, several times or not at all, or their mean.
var selects = map[string]bool{
	"Transpose": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true, "Flatten": true, "Identity": true, "Cast": true, "CastLike": true,
	"Slice": true, "Gather": true, "GatherElements": true, "GatherND": true, "Expand": true, "Tile": true, "Pad": true, "Resize": true,
	"ReduceMean": true,
}

// scatters put elements of their third input in place of some of their first: Swin v2 has its keys' bias replaced by zeros that way.
var scatters = map[string]bool{"ScatterElements": true, "ScatterND": true}

// smooth are the operators that exporters leave between such a constant and the activation, and that are defined whatever training makes of
// it. Sqrt, Log and the like are not: a step could carry their input out of their domain.
var smooth = map[string]bool{
	"Add": true, "Sub": true, "Mul": true, "Neg": true, "Exp": true, "Clip": true, "Min": true, "Max": true, "Sigmoid": true, "Tanh": true,
	"Softplus": true, "Softmax": true, "Concat": true,
}

// joined returns the tensors of more than one element that a node joins with what a linear layer has made: constants, or the constants that
// an input is computed of. Behind other operators than those above, the input itself is returned, which nobody can train.
// Single numbers (epsilons, temperatures) and masks, also computed ones, stay as they are, and before the first linear layer all is preprocessing.
func (c *Classifier) joined(by map[string]*onnx.Node, n *onnx.Node) []string {
	if !joins[n.Op] || n.Domain != "" || !slices.ContainsFunc(n.Inputs, func(in string) bool { return c.live[in] && c.learned[in] }) {
		return nil
	}
	if n.Op == "Where" {
		return c.leavesOf(by, n.Inputs[1:])
	}
	return c.leavesOf(by, n.Inputs)
}

// leavesOf returns the constants that inputs are, or are computed of.
func (c *Classifier) leavesOf(by map[string]*onnx.Node, inputs []string) []string {
	l := leaves{Classifier: c, by: by, seen: map[string]bool{}, holds: map[string]bool{}}
	for _, in := range inputs {
		if !c.live[in] {
			l.follow(in)
		}
	}
	return l.found
}

// leaves collects the constants that values are computed of. Each value is looked at once: the same one may be reached on very many ways.
type leaves struct {
	*Classifier
	by          map[string]*onnx.Node
	seen, holds map[string]bool
	composing   bool // a weight, see composed.go
	found       []string
}

func (l *leaves) follow(value string) {
	if value == "" || l.seen[value] || l.learned[value] && !l.composing { // what linear layers make of constants is trained by their weights
		return
	}
	l.seen[value] = true
	n, t := l.by[value], l.Constants[value]
	switch {
	case t != nil:
		if isWeight(t) {
			l.found = append(l.found, value)
		}
	case n != nil && selects[n.Op]:
		l.follow(n.Inputs[0])
	case n != nil && scatters[n.Op]:
		l.follow(n.Inputs[0])
		l.follow(n.Inputs[2])
	case n != nil && l.composing && n.Op == "Div":
		l.follow(n.Inputs[0])
		if l.Constants[n.Inputs[1]] != nil {
			l.follow(n.Inputs[1])
		}
	case n != nil && l.composing && n.Op == "Where":
		l.follow(n.Inputs[1])
		l.follow(n.Inputs[2])
	case n != nil && (smooth[n.Op] || l.composing && composes[n.Op]):
		for _, in := range n.Inputs {
			l.follow(in)
		}
	case n != nil && l.holdsTensors(value) && !l.computesMask(value):
		l.found = append(l.found, value)
	}
}

// holdsTensors reports whether a value is computed of float tensors that training would change if it could.
func (l *leaves) holdsTensors(value string) bool {
	if t := l.Constants[value]; t != nil {
		return isWeight(t)
	}
	n := l.by[value]
	if n == nil || n.Op == "Shape" || n.Op == "Size" {
		return false
	}
	held, known := l.holds[value]
	if !known {
		held = slices.ContainsFunc(n.Reads(), l.holdsTensors)
		l.holds[value] = held
	}
	return held
}

// computesMask reports whether a value that the file computes of constants is a mask: exporters that fold no constants make those of shifted windows of the
// windows' numbers.
func (c *Classifier) computesMask(value string) bool {
	is, known := c.masks[value]
	if !known {
		t, err := c.evaluate(value)
		is = err == nil && mask(t) // what cannot be computed is refused as a weight that cannot be trained
		c.masks[value] = is
	}
	return is
}

// isWeight: a tensor that training would change, neither a single number nor a mask.
func isWeight(t *onnx.Tensor) bool { return t.Type == onnx.Float && !single(t.Shape) && !mask(t) }

func single(shape []int64) bool {
	return !slices.ContainsFunc(shape, func(d int64) bool { return d != 1 })
}

// mask reports whether a tensor says yes or no, as those of shifted windows do (0 or -100 before the Softmax): it has two different
// values and more than one axis that is longer than 1. A vector is a weight whatever is in it.
func mask(t *onnx.Tensor) bool {
	long := 0
	for _, d := range t.Shape {
		if d > 1 {
			long++
		}
	}
	values := t.Floats()
	if long < 2 || len(values) == 0 {
		return false
	}
	first, second, two := values[0], float32(0), false
	for _, v := range values {
		switch {
		case v == first || two && v == second:
		case two:
			return false
		default:
			second, two = v, true
		}
	}
	return two
}
