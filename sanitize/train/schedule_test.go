package train_test

import (
	"slices"
	"testing"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// TestSchedule looks into the runtime's profile for the order in which it really ran the nodes of a step. Gradients of weights must come with
// the backward pass, last layer first, not behind it all, and what can be made of the state alone not long before its use: what lies ready
// takes memory, and what waits keeps activations there.
func TestSchedule(t *testing.T) {
	c, o := smallNet(t), train.StepOptions{Batch: 16, Feature: true, Momentum: 0.9}
	m, err := train.BuildGraph(c, o)
	if err != nil {
		t.Fatal(err)
	}
	var gradients *onnx.Node
	var momentum string
	for _, n := range m.Graph.Nodes {
		switch n.Op {
		case "Concat":
			if gradients == nil || len(n.Inputs) >= len(gradients.Inputs) {
				gradients = n // parameters and momenta come before it
			}
		case "Mul":
			if slices.Contains(n.Inputs, "step/momentum") {
				momentum = n.Outputs[0]
			}
		}
	}
	if momentum == "" || len(gradients.Inputs) < 10 {
		t.Fatalf("%d gradients: the net is another one", len(gradients.Inputs))
	}
	placed, err := train.Placement(t.Context(), c, o, ort.Options{Provider: ort.CPU, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for i, n := range placed {
		ran[n.Node] = i
	}
	at := func(name string) int {
		i, ok := ran[name]
		if !ok {
			t.Fatalf("%s did not run", name)
		}
		return i
	}
	var order []int
	for _, name := range gradients.Inputs {
		order = append(order, at(name))
	}
	if !slices.IsSortedFunc(order, func(a, b int) int { return b - a }) {
		t.Errorf("the gradients of the parameters ran at %v, which does not descend", order)
	}
	if m := at(momentum); m < order[0] {
		t.Errorf("the momenta moved at %d, before the last gradient at %d", m, order[0])
	}
}
