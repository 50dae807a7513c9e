package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// findTrainable collects the constants that training changes: weights and biases of linear layers, scale and shift of normalizations, and
// all others that an activation meets behind the first linear layer (joined). Constants of preprocessing, and the running statistics
// of BatchNormalization, are never among them.
func (c *Classifier) findTrainable() {
	by, inHead, frozen := producers(c.Nodes), setOf(c.Head), c.frozenInputs()
	for _, n := range c.Nodes {
		for _, name := range c.weightsOf(by, n) {
			if !c.canTrain(name) {
				continue
			}
			if frozen[name] {
				if !slices.Contains(c.FrozenWeights, name) {
					c.FrozenWeights = append(c.FrozenWeights, name)
				}
				continue
			}
			if !slices.Contains(c.Trainable, name) {
				c.Trainable = append(c.Trainable, name)
			}
			if inHead[n] && (!joins[n.Op] || c.biasOf(by, n) == name) && !slices.Contains(c.HeadWeights, name) {
				c.HeadWeights = append(c.HeadWeights, name)
			}
		}
	}
}

// findReach notes what the image has a part in, and what linear layers make.
func (c *Classifier) findReach() {
	c.live = grad.Reach(c.Nodes, []string{c.Input})
	c.findComposed()
	var products []string
	by := producers(c.Nodes)
	for _, n := range c.Nodes {
		if c.isLinear(by, n) && !c.composing[n.Outputs[0]] {
			products = append(products, n.Outputs[0])
		}
	}
	c.learned = grad.Reach(c.Nodes, products)
}

// canTrain reports whether a name is that of a float32 tensor that the file holds, as an initializer or a Constant node, or that Unfold
// inserted.
func (c *Classifier) canTrain(name string) bool {
	t := c.Constants[name]
	return t != nil && t.Type == onnx.Float && c.changeable[name]
}

// findChangeable notes the tensors of the file that can be written back.
func (c *Classifier) findChangeable() {
	c.changeable = map[string]bool{}
	for _, t := range c.Source.Graph.Initializers {
		c.changeable[t.Name] = true
	}
	for _, n := range c.Source.Graph.Nodes {
		if n.HoldsFloats() {
			c.changeable[n.Output(0)] = true
		}
	}
}

// resolveAliases lets the readers of an Identity of a constant read the constant: exporters merge equal tensors that way. Training then
// treats them as one tensor, which they are in the file.
func (c *Classifier) resolveAliases() {
	alias := map[string]string{}
	for i, n := range c.Nodes {
		if slices.ContainsFunc(n.Inputs, func(in string) bool { return alias[in] != "" }) {
			changed := *n
			changed.Inputs = slices.Clone(n.Inputs)
			for k, in := range changed.Inputs {
				if to := alias[in]; to != "" {
					changed.Inputs[k] = to
				}
			}
			n, c.Nodes[i] = &changed, &changed
		}
		if n.Op == "Identity" && n.Domain == "" && c.Constants[n.Inputs[0]] != nil {
			alias[n.Outputs[0]] = n.Inputs[0]
		}
	}
}

// untrainable returns an error for every weight of a linear layer or normalization that training cannot change, since it is computed by other
// nodes or is not of type float, and for running statistics that are not a layer's own. Weights that stay as they were would keep what
// is hidden in them. Nodes that are frozen by choice are left out.
func (c *Classifier) untrainable() []error {
	by := producers(c.Nodes)
	derived := grad.Reach(c.Nodes, c.Trainable) // what a layer of constants makes of them, as in networks that compute position biases
	users := c.users()
	var bad []error
	for _, n := range c.Nodes {
		if c.Frozen(n) {
			continue
		}
		if layersWithin(n) {
			bad = append(bad, &onnx.Error{Node: n.Label(), What: n.Op, Err: ErrWithin})
		}
		names := c.weightsOf(by, n)
		if n.Op == "BatchNormalization" {
			names = n.Inputs[1:]
			for _, name := range names[2:] {
				if users[name] != 1 {
					bad = append(bad, &onnx.Error{Node: n.Label(), What: fmt.Sprintf("running statistics %q", name), Err: ErrShared})
				}
			}
		}
		weights := c.weightInputs(n)
		for _, name := range names {
			if name != "" && !c.live[name] && !c.canTrain(name) && (!derived[name] || slices.Contains(weights, name) && c.holdsOthers(name)) {
				bad = append(bad, &onnx.Error{Node: n.Label(), What: fmt.Sprintf("%s: weight %q", n.Op, name), Err: ErrFrozen})
			}
		}
	}
	return bad
}

// layersWithin reports whether the subgraphs of a node have layers.
func layersWithin(n *onnx.Node) bool {
	return slices.ContainsFunc(n.Attrs, func(a *onnx.Attr) bool {
		return a.Graph != nil && slices.ContainsFunc(a.Graph.Nodes, func(inner *onnx.Node) bool {
			switch inner.Op {
			case "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "InstanceNormalization":
				return true
			}
			return layersWithin(inner)
		})
	})
}

// users counts the inputs that read each value.
func (c *Classifier) users() map[string]int {
	users := map[string]int{}
	for _, n := range c.Nodes {
		for _, in := range n.Reads() {
			users[in]++
		}
	}
	return users
}

// weightsOf returns the tensors that hold the weights of a node: inputs of it, or what an input is a moved copy of.
func (c *Classifier) weightsOf(by map[string]*onnx.Node, n *onnx.Node) []string {
	switch {
	case c.composing[n.Output(0)]:
		return nil // they are those of the layer whose weight it computes
	case len(n.Inputs) > 1 && c.composed[n.Inputs[1]] != nil, len(n.Inputs) > 2 && c.composed[n.Inputs[2]] != nil:
		var names []string
		for _, in := range n.Inputs[1:] {
			names = append(names, c.Sources(by, in)...)
		}
		return names
	}
	switch n.Op {
	case "Conv", "ConvTranspose", "Gemm":
		return c.allUnmoved(by, n.Inputs[1:])
	case "MatMul":
		names := c.allUnmoved(by, n.Inputs)
		if c.Constants[names[1]] == nil {
			return names // the first one may be the weight
		}
		return names[1:]
	case "BatchNormalization":
		return n.Inputs[1:3]
	case "LayerNormalization", "InstanceNormalization", "PRelu":
		var names []string
		for _, in := range n.Inputs[1:] {
			if c.Constants[in] != nil {
				names = append(names, in)
			} else {
				names = append(names, c.leavesOf(by, []string{in})...)
			}
		}
		return names
	}
	if b := c.biasOf(by, n); b != "" {
		return []string{b}
	}
	return c.joined(by, n)
}

// moves are operators that put the elements of their first input in another place and change nothing else.
var moves = map[string]bool{"Transpose": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true, "Flatten": true}

// Unmoved follows a value back to the constant that it is a moved copy of; it returns the value itself if there is none. Without constant
// folding PyTorch writes a linear layer as MatMul with Transpose(weight).
func (c *Classifier) Unmoved(by map[string]*onnx.Node, value string) string {
	at := value
	for n := by[at]; n != nil && moves[n.Op] && n.Domain == ""; n = by[at] {
		at = n.Inputs[0]
	}
	if c.Constants[at] != nil {
		return at
	}
	return value
}

func (c *Classifier) allUnmoved(by map[string]*onnx.Node, values []string) []string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = c.Unmoved(by, v)
	}
	return names
}

// biasOf returns the constant that a node adds to the output of a MatMul or Conv, or subtracts from it, "" if it does nothing of the kind. A single
// number that is subtracted is none.
func (c *Classifier) biasOf(by map[string]*onnx.Node, add *onnx.Node) string {
	if add.Op != "Add" && add.Op != "Sub" && add.Op != "Sum" || len(add.Inputs) != 2 {
		return ""
	}
	for i, in := range c.allUnmoved(by, add.Inputs) {
		if t := c.Constants[in]; t == nil || add.Op != "Add" && single(t.Shape) {
			continue
		}
		if p := by[add.Inputs[1-i]]; p != nil && (p.Op == "MatMul" || p.Op == "Conv") && c.isLinear(by, p) {
			return in
		}
	}
	return ""
}
