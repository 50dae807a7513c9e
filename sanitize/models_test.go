package sanitize

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/onnx"
)

// TestRunThirdPartyModels sanitizes models of other exporters for a short while: a fixed batch and auto_pad (CNTK), NHWC with MatMul and
// Add (tf2onnx), residual blocks without any BatchNormalization (PyTorch 1.8).
func TestRunThirdPartyModels(t *testing.T) {
	for _, tt := range []struct {
		file, set, preprocess string
		side, channels        int
		unfolded              int
		cda                   float64 // at least, after so short a run
	}{
		{"cntk-mnist.onnx", "mnist", "unit", 28, 1, 2, .6},
		{"vnncomp-cifar10_medium_nhwc.onnx", "cifar10", "unit", 32, 3, 4, .2},
		{"vnncomp-resnet_2b.onnx", "cifar10", "cifar10", 32, 3, 7, .2},
	} {
		t.Run(tt.file, func(t *testing.T) {
			model := shared.Path(t, "models", tt.file)
			d := images(t, tt.set, tt.side, tt.channels)
			dir := t.TempDir()
			o := Options{Model: model, Data: filepath.Join(dir, "images"), Output: filepath.Join(dir, "out.onnx"), Transformation: Permute,
				HoldOut: .3, Steps: new(150), Batch: 32, LearningRate: .02, NoAugment: true, Preprocess: tt.preprocess, Provider: cpu.Provider}
			if err := d.WriteFolder(o.Data); err != nil {
				t.Fatal(err)
			}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			checkRun(t, o, r)
			if r.Unfolded != tt.unfolded || r.After.CDA.Value < tt.cda-slack*2/3 {
				t.Errorf("%d layers unfolded, CDA %v before, %v after", r.Unfolded, r.Before.CDA, r.After.CDA)
			}
			t.Logf("CDA %v before, %v after", r.Before.CDA, r.After.CDA)
		})
	}
}

// TestRunConstantNodes: weights that the file keeps in Constant nodes are trained and written back like others.
func TestRunConstantNodes(t *testing.T) {
	o := toyOptions(t)
	o.Transformation = Permute
	m, err := onnx.Parse(toy.model)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []*onnx.Node
	for _, w := range m.Graph.Initializers {
		nodes = append(nodes, &onnx.Node{Op: "Constant", Outputs: []string{w.Name}, Attrs: []*onnx.Attr{onnx.T("value", w)}})
	}
	weights := len(nodes)
	m.Graph.Nodes, m.Graph.Initializers = append(nodes, m.Graph.Nodes...), nil
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Model, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.After.CDA.Value < .9-slack {
		t.Errorf("CDA %v", r.After.CDA)
	}
	out, err := onnx.ReadFile(o.Output)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range out.Graph.Nodes[:weights] {
		if before := m.Graph.Nodes[i].Attr("value").Tensor; bytes.Equal(n.Attr("value").Tensor.Raw, before.Raw) {
			t.Errorf("%s was not trained", n.Output(0))
		}
	}
	_, held := split(t, o)
	e, err := Evaluate(t.Context(), openModel(t, o.Output), nil, unitOf(t, toySide), held, nil, cpu)
	if err != nil || e.CDA != r.After.CDA {
		t.Errorf("the written file has a CDA of %+v, the report says %v (%v)", e, r.After.CDA, err)
	}
}
