package train

import (
	"slices"

	"grindstone/sanitize/onnx"
)

// schedule puts the nodes of a step into the order in which the runtime needs the least memory.
//
// ONNX Runtime walks backwards from the outputs and, at each node, first follows the input whose node stands last in the file. So what waits
// for more stands later: nodes that read the state alone come first, then those that wait for what stages[0] names, then those that wait
// for stages[1], and so on. With the images and then the labels as stages, the runtime follows the gradient through the network first, and
// transforms a weight or moves the momenta right before their use instead of long before.
//
// Nodes that no output depends on are dropped: the runtime would compute them.
func schedule(g *onnx.Graph, stages ...[]string) {
	nodes := alive(g.Nodes, g.Outputs)
	stage := map[string]int{}
	for i, names := range stages {
		for _, name := range names {
			stage[name] = i + 1
		}
	}
	of := map[*onnx.Node]int{}
	for _, n := range nodes {
		for _, in := range n.Reads() {
			of[n] = max(of[n], stage[in])
		}
		for _, out := range n.Outputs {
			stage[out] = of[n]
		}
	}
	slices.SortStableFunc(nodes, func(a, b *onnx.Node) int { return of[a] - of[b] })
	g.Nodes = nodes
}

// alive are the nodes that an output depends on.
func alive(nodes []*onnx.Node, outputs []*onnx.Value) []*onnx.Node {
	read := map[string]bool{}
	for _, o := range outputs {
		read[o.Name] = true
	}
	var kept []*onnx.Node
	for _, n := range slices.Backward(nodes) {
		if !slices.ContainsFunc(n.Outputs, func(out string) bool { return read[out] }) {
			continue
		}
		for _, in := range n.Reads() {
			read[in] = true
		}
		kept = append(kept, n)
	}
	slices.Reverse(kept)
	return kept
}
