package train_test

import (
	"encoding/json"
	"os"
	"path/filepath"
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
	m, err := train.BuildGraph(smallNet(t), train.StepOptions{Batch: 16, Feature: true, Momentum: 0.9})
	if err != nil {
		t.Fatal(err)
	}
	var gradients *onnx.Node
	var momentum string
	for _, n := range m.Graph.Nodes {
		n.Name = n.Outputs[0]
		switch n.Op {
		case "Concat":
			if gradients == nil || len(n.Inputs) >= len(gradients.Inputs) {
				gradients = n // parameters and momenta come before it
			}
		case "Mul":
			if slices.Contains(n.Inputs, "step/momentum") {
				momentum = n.Name
			}
		}
	}
	if momentum == "" || len(gradients.Inputs) < 10 {
		t.Fatalf("%d gradients: the net is another one", len(gradients.Inputs))
	}
	ran := map[string]int{}
	for i, name := range profile(t, m) {
		ran[name] = i
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

// profile runs a model whose inputs all have defaults but those of a batch, and returns the names of its nodes as they ran.
func profile(t *testing.T, m *onnx.Model) []string {
	t.Helper()
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	prefix := filepath.Join(t.TempDir(), "profile")
	s, err := ort.NewSession(raw, ort.Options{Provider: ort.CPU, Threads: 1, Profile: prefix})
	if err != nil {
		t.Fatal(err)
	}
	var in []*ort.Array
	for _, p := range s.Inputs() {
		size := int64(1)
		for _, d := range p.Shape {
			size *= d
		}
		a := &ort.Array{Shape: p.Shape}
		if p.Name == "labels" {
			a.I64 = make([]int64, size)
		} else {
			a.F32 = make([]float32, size)
			for i := range a.F32 {
				a.F32[i] = float32(i%7) / 7
			}
		}
		in = append(in, a)
	}
	if err := s.Run(t.Context(), in, make([]*ort.Array, len(s.Outputs()))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // writes the profile
		t.Fatal(err)
	}
	files, err := filepath.Glob(prefix + "*")
	if err != nil || len(files) != 1 {
		t.Fatalf("profiles: %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var events []struct{ Cat, Name string }
	if err := json.Unmarshal(text, &events); err != nil {
		t.Fatal(err)
	}
	const suffix = "_kernel_time"
	var names []string
	for _, e := range events {
		if n := len(e.Name) - len(suffix); e.Cat == "Node" && n > 0 && e.Name[n:] == suffix {
			names = append(names, e.Name[:n])
		}
	}
	return names
}
