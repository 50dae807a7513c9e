package train

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// flatten emits the gradients as vectors, in the parameters' order. Their reshapes are emitted in the order opposite to that in which the backward
// pass leaves the gradients, so that the runtime computes the last layer's first (see schedule), whatever the order of the parameters. They must
// be emitted here: the runtime would merge a reshape of a reshape into one that stands behind all others, and compute the weight gradients when
// the backward pass is through, which keeps all that they read until then.
func (s *stepBuilder) flatten(grads map[string]string) []string {
	left := map[string]int{}
	for i, n := range s.b.Graph("").Nodes {
		for _, out := range n.Outputs {
			left[out] = i
		}
	}
	flat, order := make([]string, len(s.step.Parameters)), make([]int, len(s.step.Parameters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return left[grads[s.step.Parameters[b].Name]] - left[grads[s.step.Parameters[a].Name]]
	})
	for _, i := range order {
		if g := grads[s.step.Parameters[i].Name]; g != "" { // else the loss does not depend on it
			flat[i] = s.tape.Flat(g)
		}
	}
	return flat
}

// join makes one vector of the gradients, like the parameters'.
func (s *stepBuilder) join(grads map[string]string) string {
	flat := s.flatten(grads)
	for i, slot := range s.step.Parameters {
		if flat[i] == "" {
			flat[i] = s.b.Floats([]int64{int64(slot.Size)}, make([]float32, slot.Size))
		}
	}
	return s.b.Op("Concat", flat, onnx.I("axis", 0))
}

// update is SGD with Nesterov momentum and weight decay (Sutskever et al. 2013, in PyTorch's form): g += wd*p; v = mu*v + g;
// p -= rate*(g + mu*v).
func (s *stepBuilder) update(g string) (params, momentum string) {
	b := s.b
	g = b.Op("Add", []string{g, b.Op("Mul", []string{"step/parameters", b.Float(s.o.WeightDecay)})})
	v := b.Op("Add", []string{b.Op("Mul", []string{"step/momentum", b.Float(s.o.Momentum)}), g})
	ahead := b.Op("Add", []string{g, b.Op("Mul", []string{v, b.Float(s.o.Momentum)})})
	return b.Op("Sub", []string{"step/parameters", b.Op("Mul", []string{ahead, "step/rate"})}), v
}

// updateStatistics moves the running statistics towards the batch's: running = m*running + (1-m)*batch, m as each node says.
func (s *stepBuilder) updateStatistics() string {
	b := s.b
	batch := s.tape.Statistics
	if len(batch) == 0 {
		return b.Op("Identity", []string{"step/statistics"})
	}
	var parts []string
	keep := make([]float32, length(s.step.Statistics))
	for i, st := range batch {
		parts = append(parts, st.Mean, st.Variance)
		for _, slot := range s.step.Statistics[2*i : 2*i+2] {
			for k := range slot.Size {
				keep[slot.Offset+k] = st.Node.Float("momentum", 0.9)
			}
		}
	}
	rest := make([]float32, len(keep))
	for i, m := range keep {
		rest[i] = 1 - m
	}
	n := int64(len(keep))
	old := b.Op("Mul", []string{"step/statistics", b.Floats([]int64{n}, keep)})
	new := b.Op("Mul", []string{b.Op("Concat", parts, onnx.I("axis", 0)), b.Floats([]int64{n}, rest)})
	return b.Op("Add", []string{old, new})
}
