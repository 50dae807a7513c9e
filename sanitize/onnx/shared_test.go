package onnx

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"grindstone/internal/shared"
)

// sharedModels are third-party models by file name, from several exporters.
func sharedModels(t *testing.T) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(shared.Path(t, "models"), "*.onnx"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no models found: %v", err)
	}
	models := map[string][]byte{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		models[filepath.Base(p)] = data
	}
	return models
}

func TestSharedModelsRoundTrip(t *testing.T) {
	for name, data := range sharedModels(t) {
		m, err := Parse(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(m.Graph.Nodes) == 0 || len(m.Graph.Outputs) != 1 || len(m.Graph.DataInputs()) != 1 || m.Opsets[""] < 7 {
			t.Errorf("%s: %d nodes, %d outputs, %d inputs, opset %d", name, len(m.Graph.Nodes), len(m.Graph.Outputs), len(m.Graph.DataInputs()), m.Opsets[""])
		}
		out, err := m.Marshal()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, err := Parse(out)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !Equal(m, again) {
			t.Errorf("%s: Marshal lost something", name)
		}
		m.raw, again.raw = nil, nil
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%s: the model read back differs", name)
		}
	}
}

func TestSharedModelsRewrite(t *testing.T) {
	for name, data := range sharedModels(t) {
		m, err := Parse(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same := map[string]*Tensor{}
		for _, w := range m.Graph.Initializers {
			same[w.Name] = w
		}
		for what, weights := range map[string]map[string]*Tensor{"no weights": nil, "its own weights": same} {
			out, err := m.Rewrite(weights)
			if err != nil || !bytes.Equal(out, data) {
				t.Errorf("%s: rewritten with %s it changes (%v)", name, what, err)
			}
		}
		for i, w := range m.Graph.Initializers {
			if !w.Type.IsFloat() {
				continue
			}
			checkRewriteOne(t, name, m, i)
		}
	}
}

// checkRewriteOne replaces initializer i and expects every other field to stay.
func checkRewriteOne(t *testing.T, name string, m *Model, i int) {
	t.Helper()
	w := m.Graph.Initializers[i]
	v := w.Floats()
	for j := range v {
		v[j] = float32(j) - 0.5
	}
	want := NewFloat(w.Name, w.Shape, v)
	out, err := m.Rewrite(map[string]*Tensor{w.Name: want})
	if err != nil {
		t.Fatalf("%s: %s: %v", name, w.Name, err)
	}
	if len(out) != len(m.raw) {
		t.Errorf("%s: %s: the file has %d bytes instead of %d", name, w.Name, len(out), len(m.raw))
	}
	got, err := Parse(out)
	if err != nil {
		t.Fatalf("%s: %s: %v", name, w.Name, err)
	}
	if !bytes.Equal(got.Graph.Initializers[i].Raw, want.Raw) {
		t.Errorf("%s: %s was not replaced", name, w.Name)
	}
	got.Graph.Initializers[i].Raw = w.Raw
	if !Equal(got, m) {
		t.Errorf("%s: replacing %s changed something else", name, w.Name)
	}
}
