package classifier

import (
	"errors"
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// ErrFreeze means that a part of the network cannot be frozen as asked.
var ErrFreeze = errors.New("cannot freeze below")

// freezeBelow freezes a node and everything that it depends on: none of it is trained, and its BatchNormalizations keep their running
// statistics. The node is given by its name, by one of its outputs, or as messages label it.
func (c *Classifier) freezeBelow(names []string) error {
	c.frozen = map[string]bool{}
	for _, name := range names {
		i := slices.IndexFunc(c.Nodes, func(n *onnx.Node) bool {
			return n.Name == name || n.Label() == name || slices.Contains(n.Outputs, name)
		})
		if name == "" || i < 0 {
			return fmt.Errorf("%w %q: there is no such node between input and logits", ErrFreeze, name)
		}
		for _, n := range ancestors(c.Nodes, c.Nodes[i].Output(0)) {
			for _, out := range n.Outputs {
				c.frozen[out] = true
			}
		}
	}
	return nil
}

// Frozen reports whether a node stays as it is, by choice.
func (c *Classifier) Frozen(n *onnx.Node) bool { return c.frozen[n.Output(0)] }

// frozenInputs are the values that frozen nodes read. A weight among them stays as it is, though others may read it as well.
func (c *Classifier) frozenInputs() map[string]bool {
	read := map[string]bool{}
	for _, n := range c.Nodes {
		if c.Frozen(n) {
			for _, in := range n.Reads() {
				read[in] = true
			}
		}
	}
	return read
}

// checkFeatures: grinding needs weights that the features depend on.
func (c *Classifier) checkFeatures(frozen []string) error {
	if grad.Reach(c.Nodes, c.Trainable)[c.Feature] {
		return nil
	}
	if len(frozen) > 0 {
		return fmt.Errorf("%w %q: no weight that the feature layer %q depends on would be trained", ErrFreeze, frozen, c.Feature)
	}
	if err := c.CheckTrainable(); err != nil {
		return err
	}
	return &onnx.Error{What: "feature layer " + c.Feature, Err: fmt.Errorf(
		"%w: no weight stands between the input and it, so that training cannot change what the head reads", ErrNoHead)}
}
