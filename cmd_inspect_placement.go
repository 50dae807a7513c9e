package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// placement says which nodes of a training step a provider left to the CPU.
type placement struct {
	Provider ort.Provider   `json:"provider"`
	Nodes    int            `json:"nodes"` // that were run; a provider that compiles makes one of many
	By       map[string]int `json:"by"`    // how many of them ran on each provider, by ONNX Runtime's name
	OnCPU    []ort.Placed   `json:"on_cpu"`
	Copies   int            `json:"copies"` // nodes that ONNX Runtime put in to copy between device and main memory
}

// placeStep runs a training step on a provider.
func placeStep(ctx context.Context, c *classifier.Classifier, p ort.Provider, batch int) (*placement, error) {
	p, err := ort.Resolve(p)
	if err != nil {
		return nil, err
	}
	o := train.StepOptions{Batch: batch, Feature: true, Momentum: 0.9, WeightDecay: 5e-4}
	nodes, err := train.Placement(ctx, c, o, ort.Options{Provider: p})
	if err != nil {
		return nil, fmt.Errorf("a training step on %s: %w", p, err)
	}
	return countPlacement(p, nodes), nil
}

func countPlacement(p ort.Provider, nodes []ort.Placed) *placement {
	found := &placement{Provider: p, Nodes: len(nodes), By: map[string]int{}, OnCPU: []ort.Placed{}}
	for _, n := range nodes {
		found.By[n.Provider]++
		switch {
		case strings.HasPrefix(n.Op, "Memcpy"):
			found.Copies++
		case n.Provider == ort.CPU.LibraryName():
			found.OnCPU = append(found.OnCPU, n)
		}
	}
	return found
}

func (p *placement) print(row func(what, format string, a ...any)) {
	var by []string
	for _, name := range slices.Sorted(maps.Keys(p.By)) {
		by = append(by, fmt.Sprintf("%d on %s", p.By[name], name))
	}
	row("placement", "%d nodes of a training step: %s", p.Nodes, strings.Join(by, ", "))
	if p.Copies > 0 {
		row("", "%d of them copy between the device and main memory", p.Copies)
	}
	if p.Provider == ort.CPU {
		return
	}
	names := map[string][]string{}
	for _, n := range p.OnCPU {
		names[n.Op] = append(names[n.Op], n.Node)
	}
	for _, op := range slices.Sorted(maps.Keys(names)) {
		row("", "on the CPU: %d %s (%s)", len(names[op]), op, strings.Join(names[op], ", "))
	}
}
