package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/internal/sandbox"
	"grindstone/internal/shared"
	"grindstone/sanitize/ort"
	"grindstone/webhook"
)

// TestModelGoesThroughTheRealServer pushes a third-party classifier with one client, has the real sanitizer grind it briefly, and pulls and verifies it with others.
func TestModelGoesThroughTheRealServer(t *testing.T) {
	model, err := os.ReadFile(shared.Path(t, "models", "vnncomp-cifar10_medium_nhwc.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	data := shared.Path(t, "data", "cifar10", "test.tar.gz")
	if _, err := ort.Load(); err != nil {
		t.Skipf("no ONNX Runtime library: %v", err)
	}
	config := writeConfig(t, t.TempDir(), "datasets: {default: "+data+"}\ntrainer: {steps: 600, learning_rate: 0.02, batch: 64}\n"+
		"policy: {data: {settings: {max_cda_loss: 0.5}}}\n")
	s := startServer(t, "--config", config)

	// A third party pushes it, as `oras push` does.
	source := memory.New()
	layer, err := oras.PushBytes(t.Context(), source, "application/octet-stream", model)
	if err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "model.onnx"}
	pushed, err := oras.PackManifest(t.Context(), source, oras.PackManifestVersion1_1, "application/vnd.test.model",
		oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := remote.NewRepository(s.address + "/models/medium")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	if err := source.Tag(t.Context(), pushed, "v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := oras.Copy(t.Context(), source, "v1", repo, "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}

	a := s.settle(5 * time.Minute)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	if a.Report.After.CDA.Count == 0 || !a.Report.SecretDiscarded || a.Report.Hyperparameters.Steps != 600 {
		t.Errorf("%+v", a.Report)
	}
	if confined, _ := sandbox.Available(); a.Report.Runtime.Sandbox != confined {
		t.Errorf("%q confined the sanitizer, and this machine has %q", a.Report.Runtime.Sandbox, confined)
	}

	// A deployer pulls the tag with another client and verifies.
	reference := s.address + "/models/medium:v1"
	text, err := crane.Manifest(reference, crane.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	var got ocispec.Manifest
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Layers[0].Digest == layer.Digest || got.Layers[0].Annotations[ocispec.AnnotationTitle] != "model.onnx" || got.Layers[0].Size != layer.Size {
		t.Errorf("pulled %+v, pushed %+v", got.Layers[0], layer)
	}
	key := filepath.Join(s.dir, "keys", "grindstone.pub")
	out, err := s.grindstone("verify", reference, "--key", key)
	if err != nil || !strings.Contains(out, "verified: "+reference) || !strings.Contains(out, a.Released.Digest) {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := s.grindstone("verify", s.address+"/models/medium@"+pushed.Digest.String(), "--key", key); err == nil || !strings.Contains(out, "NOT VERIFIED") {
		t.Errorf("the pushed model verifies: %s", out)
	}
	var metrics string
	if s.get("/metrics", &metrics); !strings.Contains(metrics, `grindstone_sanitize_seconds_count{outcome="ok"} 1`) {
		t.Error("the metrics do not count the run")
	}
}
