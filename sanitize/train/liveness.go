package train

import (
	"fmt"
	"slices"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// block is a piece of memory. One value after another can have it.
type block struct {
	of          string // type and shape of these values
	bytes       int64
	reads       int // of the value that has it now, still to come
	first, last int // node that allocates it, and last node that uses it
}

// peak is the largest sum of node outputs that are in memory at the same time, given their types and shapes. Inputs, constants and what the graph puts
// out do not count: they have their places.
//
// ONNX Runtime decides before it runs which values share memory (AllocationPlanner in onnxruntime/core/framework/allocation_planner.cc): a view has
// its input's, an elementwise operator writes over an input that is of no more use, and any other output takes what the latest value of the same
// type and shape left. Memory that is taken again later on is not given back in between. A value whose shape it does not know by then, as planned
// has it, has memory of its own, given back after its last use.
func peak(g *onnx.Graph, outputs, planned map[string]ort.Port) int64 {
	reads := map[string]int{}
	for _, n := range g.Nodes {
		for _, in := range n.Reads() {
			reads[in]++
		}
	}
	placed := map[string]bool{}
	for _, o := range g.Outputs {
		placed[o.Name] = true
	}
	nodes := execution(g)
	blocks := map[string]*block{}
	free := map[string][]*block{} // by type and shape, the latest last
	var all []*block
	leave := func(b *block, node int) {
		b.last = node
		if b.reads == 0 {
			free[b.of] = append(free[b.of], b)
		}
	}
	for i, n := range nodes {
		for _, out := range n.Outputs {
			if placed[out] {
				continue
			}
			port := outputs[out]
			of := fmt.Sprint(port.Type, port.Shape)
			if slices.Contains(planned[out].Shape, -1) {
				of = out
			}
			b := reused(n, of, blocks)
			if left := free[of]; b == nil && len(left) > 0 {
				b, free[of] = left[len(left)-1], left[:len(left)-1]
			}
			if b == nil {
				b = &block{of: of, bytes: port.Bytes(), first: i}
				all = append(all, b)
			}
			b.reads += reads[out]
			b.last = i
			blocks[out] = b
		}
		for _, in := range n.Reads() {
			if b := blocks[in]; b != nil {
				b.reads--
				leave(b, i)
			}
		}
		for _, out := range n.Outputs {
			if b := blocks[out]; b != nil && reads[out] == 0 {
				leave(b, i)
			}
		}
	}
	change := make([]int64, len(nodes)+1)
	for _, b := range all {
		change[b.first] += b.bytes
		change[b.last+1] -= b.bytes
	}
	var now, most int64
	for _, c := range change {
		now += c
		most = max(most, now)
	}
	return most
}

// views are the operators whose output is their first input's memory in ONNX Runtime.
var views = []string{"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}

// inPlace are operators that write over an input which nobody reads after them.
var inPlace = []string{"Add", "Sub", "Mul", "Div", "Relu", "LeakyRelu", "Elu", "Sigmoid", "HardSigmoid", "Tanh", "Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Erf",
	"Clip", "Floor", "Ceil", "Softplus", "Softsign", "Dropout"}

// reused returns the memory of an input that a node's output has; nil when it has none of theirs.
func reused(n *onnx.Node, of string, blocks map[string]*block) *block {
	switch {
	case slices.Contains(views, n.Op):
		if b := blocks[n.Inputs[0]]; b != nil {
			return b
		}
		return &block{} // of an input or a constant
	case slices.Contains(inPlace, n.Op):
		for _, in := range n.Inputs {
			if b := blocks[in]; b != nil && b.reads == 1 && b.of == of {
				return b
			}
		}
	}
	return nil
}

// execution is the order in which ONNX Runtime runs the nodes: it walks backwards from those that no other reads, the last in the file first,
// and at each node first follows the input whose producer stands last (Graph::ReverseDFSFrom in onnxruntime/core/graph/graph.cc).
func execution(g *onnx.Graph) []*onnx.Node {
	producer, read := map[string]int{}, map[string]bool{}
	for i, n := range g.Nodes {
		for _, out := range n.Outputs {
			producer[out] = i
		}
		for _, in := range n.Reads() {
			read[in] = true
		}
	}
	type entry struct {
		node int
		done bool // all that it reads has its place
	}
	var stack []entry
	for i, n := range g.Nodes {
		if !slices.ContainsFunc(n.Outputs, func(out string) bool { return read[out] }) {
			stack = append(stack, entry{node: i})
		}
	}
	order, visited := make([]*onnx.Node, 0, len(g.Nodes)), make([]bool, len(g.Nodes))
	for len(stack) > 0 {
		last := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		n := g.Nodes[last.node]
		if last.done {
			order = append(order, n)
			continue
		}
		if visited[last.node] {
			continue
		}
		visited[last.node] = true
		stack = append(stack, entry{last.node, true})
		var before []int
		for _, in := range n.Reads() {
			if i, ok := producer[in]; ok && !visited[i] {
				before = append(before, i)
			}
		}
		slices.Sort(before)
		for _, i := range before {
			stack = append(stack, entry{node: i})
		}
	}
	return order
}
