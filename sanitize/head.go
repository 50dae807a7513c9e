package sanitize

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/train"
)

// resetHead re-initialises the layers above the features: weights and biases of linear layers uniformly within 1/sqrt(fan-in), as
// PyTorch does, normalizations to the identity.
func (r *run) resetHead(context.Context) error {
	r.start = train.Values(r.c)
	resetHead(r.c, r.start, rand.New(rand.NewPCG(r.Seed, 0x68656164)))
	return nil
}

func resetHead(c *classifier.Classifier, values map[string][]float32, random *rand.Rand) {
	by := (&onnx.Graph{Nodes: c.Nodes}).Producer()
	bounds := map[string]float64{} // of what a layer makes; a bias that another node adds to it has the weight's
	for _, n := range c.Head {
		bound := 0.0
		for _, in := range n.Inputs {
			bound = max(bound, bounds[in])
		}
		for i, in := range n.Inputs {
			for _, name := range c.Sources(by, in) {
				if !slices.Contains(c.HeadWeights, name) {
					continue
				}
				v := values[name]
				switch n.Op {
				case "BatchNormalization", "LayerNormalization", "InstanceNormalization":
					for k := range v {
						v[k] = float32(2 - i) // scale 1, shift 0
					}
					continue
				case "PRelu":
					continue
				}
				if f := fanIn(n, i, c.ShapeOf(in)); f > 0 {
					bound = 1 / math.Sqrt(float64(f))
				}
				for k := range v {
					v[k] = float32((2*random.Float64() - 1) * bound)
				}
			}
		}
		bounds[n.Output(0)] = bound
	}
}

// fanIn is the number of inputs that each output of a linear layer sums, if the node's input i is the layer's weight; else 0.
func fanIn(n *onnx.Node, i int, shape []int64) int64 {
	switch {
	case n.Op == "Conv" && i == 1:
		size := int64(1)
		for _, d := range shape[1:] {
			size *= d
		}
		return size
	case n.Op == "Gemm" && i == 1:
		return shape[n.Int("transB", 0)]
	case n.Op == "MatMul" && i == 1:
		return shape[max(len(shape)-2, 0)]
	case n.Op == "MatMul" && i == 0:
		return shape[len(shape)-1]
	}
	return 0
}
