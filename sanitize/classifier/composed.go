package classifier

import (
	"maps"
	"slices"

	"grindstone/sanitize/onnx"
)

// Some files compute a layer's weight when they run: normalized weights, low-rank updates that are not merged, pruned ones under their mask. What such a
// weight is composed of is trained in its place, as the framework did. A quotient's numerator is: norms and deviations are of the same tensor.

// composes are the operators, beside those that select and the smooth ones, that weights are composed by.
var composes = map[string]bool{"MatMul": true, "Gemm": true, "Sum": true}

// findComposed notes of what constants the weights are that linear layers multiply the image's data by and that the file computes. A weight that is computed in
// another way is not among them.
func (c *Classifier) findComposed() {
	c.composed, c.composing = map[string][]string{}, map[string]bool{}
	by := producers(c.Nodes)
	for _, n := range c.Nodes {
		for _, in := range c.weightInputs(n) {
			if by[in] == nil || c.live[in] || c.Constants[c.Unmoved(by, in)] != nil {
				continue
			}
			l := leaves{Classifier: c, by: by, seen: map[string]bool{}, holds: map[string]bool{}, composing: true}
			l.follow(in)
			if len(l.found) == 0 || slices.ContainsFunc(l.found, func(name string) bool { return c.Constants[name] == nil }) {
				continue
			}
			c.composed[in] = l.found
		}
	}
	for _, n := range ancestors(c.Nodes, slices.Collect(maps.Keys(c.composed))...) {
		for _, out := range n.Outputs {
			c.composing[out] = true
		}
	}
}

// weightInputs are the inputs of a linear layer that hold its weight and bias, if its data come from the image.
func (c *Classifier) weightInputs(n *onnx.Node) []string {
	switch n.Op {
	case "Conv", "ConvTranspose", "Gemm", "MatMul":
		if n.Domain == "" && c.live[n.Inputs[0]] {
			return n.Inputs[1:]
		}
	}
	return nil
}

// Sources returns the constants that an input of a layer is, is a moved copy of, or is composed of.
func (c *Classifier) Sources(by map[string]*onnx.Node, value string) []string {
	if of := c.composed[value]; of != nil {
		return of
	}
	return []string{c.Unmoved(by, value)}
}

// holdsOthers reports whether a value is computed of weights that are not trained.
func (c *Classifier) holdsOthers(value string) bool {
	for _, n := range ancestors(c.Nodes, value) {
		for _, in := range n.Reads() {
			if t := c.Constants[in]; t != nil && isWeight(t) && !slices.Contains(c.Trainable, in) {
				return true
			}
		}
	}
	return false
}
