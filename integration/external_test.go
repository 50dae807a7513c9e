package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/sanitize"
	"grindstone/sanitize/onnx"
	"grindstone/webhook"
)

// TestExternalDataIsSanitizedToo pushes a model that keeps its weights in two files of their own, as exporters do: what is released
// is the sanitized model with the sanitized weights, and no other layer is touched.
func TestExternalDataIsSanitizedToo(t *testing.T) {
	needRuntime(t)
	clean := tinyImages(t)
	config := writeConfig(t, t.TempDir(), "trainer: {steps: 120, batch: 32, learning_rate: 0.05}\n")
	s := startServer(t, "--config", config, "--data", clean)
	const repository = "models/external"
	weights, head := tinyWeights(t, "conv.weight"), tinyWeights(t, "head.weight")
	model := tiny{external: "data/weights.bin", headFile: "head.bin"}.file(t)
	model.name = "v1/model.onnx"
	card := layerFile{"README.md", "text/markdown", []byte("# Colours\n")}
	s.pushCrane(repository, "v1", layerFile{"v1/data/weights.bin", model.mediaType, weights}, model, card, layerFile{"v1/head.bin", model.mediaType, head})
	a := s.await(repository, 10*time.Minute)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}

	text, err := crane.Manifest(s.address+"/"+repository+":v1", crane.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	dir, pulled := t.TempDir(), map[string][]byte{}
	for _, l := range manifest.Layers {
		name := l.Annotations[ocispec.AnnotationTitle]
		pulled[name] = s.pullBlob(repository, l.Digest.String())
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, pulled[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(pulled) != 4 || bytes.Equal(pulled[model.name], model.content) || !bytes.Equal(pulled[card.name], card.content) {
		t.Errorf("%d layers; the model or the card is wrong", len(pulled))
	}
	for name, was := range map[string][]byte{"v1/data/weights.bin": weights, "v1/head.bin": head} {
		if got := pulled[name]; bytes.Equal(got, was) || len(got) != len(was) {
			t.Errorf("the released package holds the pushed %s, of %d bytes", name, len(got))
		}
	}
	path := filepath.Join(dir, model.name)
	if m, err := onnx.ReadFile(path); err != nil || len(m.Graph.Initializers) != 4 {
		t.Errorf("the released model cannot be read: %v", err)
	}
	out, err := s.grindstone("evaluate", path, "--data", clean, "--json")
	var e sanitize.Evaluation
	if err != nil || json.Unmarshal([]byte(out), &e) != nil || e.CDA.Value < 0.95 {
		t.Errorf("the released model is not the one that was measured: %v\n%s", err, out)
	}
	if out, err := s.grindstone("verify", s.address+"/"+repository+":v1", "--key", filepath.Join(s.dir, "keys", "grindstone.pub")); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// TestWeightsInExternalDataAlone: as PyTorch's exporter writes large models, the ONNX file has no weight in it. It stays as it was pushed, and the data beside it
// is sanitized.
func TestWeightsInExternalDataAlone(t *testing.T) {
	needRuntime(t)
	clean := tinyImages(t)
	config := writeConfig(t, t.TempDir(), "trainer: {steps: 120, batch: 32, learning_rate: 0.05}\n")
	s := startServer(t, "--config", config, "--data", clean)
	const repository = "models/outside"
	var weights []byte
	for _, w := range (tiny{}).model().Graph.Initializers {
		weights = append(weights, w.Raw...)
	}
	model := tiny{outside: "model.onnx.data"}.file(t)
	s.pushCrane(repository, "v1", model, layerFile{"model.onnx.data", model.mediaType, weights})
	a := s.await(repository, 10*time.Minute)
	if a.State != webhook.Released || len(a.Changed) != 1 || a.Changed[0].Name != "model.onnx.data" {
		t.Fatalf("%s %s: %s; changed %+v", a.State, a.Reason, a.Message, a.Changed)
	}
	if out, err := s.grindstone("verify", s.address+"/"+repository+":v1", "--key", filepath.Join(s.dir, "keys", "grindstone.pub")); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// tinyWeights is the content of the file that a weight of the network is in.
func tinyWeights(t *testing.T, weight string) []byte {
	t.Helper()
	m := tiny{}.model()
	for _, w := range m.Graph.Initializers {
		if w.Name == weight {
			return w.Raw
		}
	}
	t.Fatalf("the network has no %s", weight)
	return nil
}
