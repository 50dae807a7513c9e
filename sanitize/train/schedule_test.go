package train_test

import (
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// TestSchedule looks into the runtime's profile for the order in which it really ran the nodes of a step. Gradients of weights must come with
// the backward pass, last layer first, not behind it all, whatever the order of the weights in the file; and what can be made of the state alone not
// long before its use: what lies ready takes memory, and what waits keeps activations there.
func TestSchedule(t *testing.T) {
	for name, order := range map[string]func([]string){
		"as in the network": func([]string) {},
		"backwards":         slices.Reverse[[]string],
		"convolutions last": func(names []string) {
			slices.SortStableFunc(names, func(a, b string) int { return strings.Index(b, "conv") - strings.Index(a, "conv") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := smallNet(t)
			layers := []string{} // in the network's order
			for _, w := range c.Trainable {
				if l := layerOf(w); !slices.Contains(layers, l) {
					layers = append(layers, l)
				}
			}
			order(c.Trainable)
			testSchedule(t, c, layers)
		})
	}
}

func layerOf(weight string) string {
	layer, _, _ := strings.Cut(weight, ".")
	return layer
}

func testSchedule(t *testing.T, c *classifier.Classifier, layers []string) {
	o := train.StepOptions{Batch: 16, Feature: true, Momentum: 0.9}
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
	first, last := map[string]int{}, map[string]int{} // of a layer's gradients
	for i, name := range gradients.Inputs {
		layer, ran := layerOf(c.Trainable[i]), at(name)
		if f, ok := first[layer]; !ok || ran < f {
			first[layer] = ran
		}
		last[layer] = max(last[layer], ran)
	}
	for i := 1; i < len(layers); i++ {
		if above, below := layers[i], layers[i-1]; last[above] > first[below] {
			t.Errorf("the gradients of %s ran until %d, after the first of %s, which is below it, at %d", above, last[above], below, first[below])
		}
	}
	if m := at(momentum); m < last[layers[0]] {
		t.Errorf("the momenta moved at %d, before the last gradient at %d", m, last[layers[0]])
	}
}
