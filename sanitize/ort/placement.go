package ort

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Placed is a node as ONNX Runtime ran it, after its rewriting of the graph: a fused node has the name of one of those it replaces, and a
// provider that compiles has one node for a whole part of the graph.
type Placed struct {
	Node     string `json:"node"`
	Op       string `json:"op"`
	Provider string `json:"provider"` // ONNX Runtime's own name: CPUExecutionProvider, CUDAExecutionProvider
}

// Placement runs a model once and returns which provider each of its nodes ran on, in the order of execution, from ONNX Runtime's profile: it
// gives to the CPU, without a word, what a provider does not know. Errors: those of NewSession and Run.
func Placement(ctx context.Context, model []byte, in []*Array, opt Options) ([]Placed, error) {
	dir, err := os.MkdirTemp("", "grindstone-placement-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	opt.Profile = filepath.Join(dir, "profile")
	s, err := NewSession(model, opt)
	if err != nil {
		return nil, err
	}
	err = s.Run(ctx, in, make([]*Array, len(s.Outputs())))
	if cerr := s.Close(); err == nil { // which writes the profile
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	files, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "profile*"))
	if len(files) != 1 {
		return nil, fmt.Errorf("%w: it wrote %d profiles instead of one", ErrRun, len(files))
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	return readPlacement(raw)
}

// readPlacement reads the nodes of a profile, each once.
func readPlacement(profile []byte) ([]Placed, error) {
	var events []struct {
		Name, Cat string
		Args      struct {
			Op       string `json:"op_name"`
			Provider string `json:"provider"`
		}
	}
	if err := json.Unmarshal(profile, &events); err != nil {
		return nil, fmt.Errorf("%w: its profile cannot be read: %w", ErrRun, err)
	}
	var placed []Placed
	for _, e := range events {
		node, ran := strings.CutSuffix(e.Name, "_kernel_time")
		p := Placed{Node: node, Op: e.Args.Op, Provider: e.Args.Provider}
		if e.Cat == "Node" && ran && !slices.Contains(placed, p) {
			placed = append(placed, p)
		}
	}
	return placed, nil
}
