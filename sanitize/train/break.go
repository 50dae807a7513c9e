//go:build breakrule

package train

import (
	"os"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// A build with this tag scales the gradients of the operator that GRINDSTONE_BREAK names by 1.01, so that a check of the whole engine can
// show that it would notice. No product is built with it.
func init() {
	op := os.Getenv("GRINDSTONE_BREAK")
	rule, ok := grad.Rules[op]
	if !ok {
		return
	}
	broken := func(backward func(*grad.Tape, *onnx.Node, []string) []string) func(*grad.Tape, *onnx.Node, []string) []string {
		return func(t *grad.Tape, n *onnx.Node, dy []string) []string {
			out := backward(t, n, dy)
			for i, g := range out {
				if g != "" {
					out[i] = t.B.Op("Mul", []string{g, t.B.Float(1.01)})
				}
			}
			return out
		}
	}
	rule.Backward = broken(rule.Backward)
	if rule.Inner != nil {
		inner := *rule.Inner
		inner.Backward = broken(inner.Backward)
		rule.Inner = &inner
	}
	grad.Rules[op] = rule
}
