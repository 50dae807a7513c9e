package classifier

import (
	"slices"

	"grindstone/sanitize/grad"
)

// resolvePadding replaces auto_pad by the pads that it means at the model's image size, which is what gradient rules are written for.
func (c *Classifier) resolvePadding() {
	for i, n := range c.Nodes {
		c.Nodes[i] = grad.ResolvePadding(n, c.shapes)
		if h := slices.Index(c.Head, n); h >= 0 {
			c.Head[h] = c.Nodes[i]
		}
	}
}
