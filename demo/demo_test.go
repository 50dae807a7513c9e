package demo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
)

// TestOwnStory: before and after are measured by one preprocessing, on the images that the dataset sets apart; where these cannot be read, no others take
// their place.
func TestOwnStory(t *testing.T) {
	d, err := data.Open(t.Context(), shared.Path(t, "data", "cifar10", "test.tar.gz"), data.Options{Limit: 300, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, part := range []string{"train", "test"} {
		if err := d.WriteFolder(filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
	s := &story{Options: Options{Model: shared.Path(t, "models", "nad-wrn16-badnet.onnx"), Data: dir, Provider: ort.CPU, Say: func(string, ...any) {}}}
	if err := s.castOwn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.preprocess != "unit" || s.test.Len() != 300 {
		t.Errorf("preprocessing %q, %d images", s.preprocess, s.test.Len())
	}
	s.preprocess = "bytes" // as if it had been the first model's
	got, err := s.evaluate(t.Context(), s.Model)
	if err != nil {
		t.Fatal(err)
	}
	c, err := classifier.Open(s.Model, classifier.Options{Rounded: true})
	if err != nil {
		t.Fatal(err)
	}
	bytes255, err := data.Named("bytes", data.NCHW, 32, 32, 3)
	if err != nil {
		t.Fatal(err)
	}
	want, err := sanitize.Evaluate(t.Context(), c, nil, bytes255, s.test, nil, ort.Options{Provider: ort.CPU})
	if err != nil {
		t.Fatal(err)
	}
	if got.CDA != want.CDA || got.CDA.Value == s.outcome.Before.CDA {
		t.Errorf("CDA %v, by the preprocessing of the first model it is %v", got.CDA, want.CDA)
	}

	s.Trigger = &Trigger{Image: "mark.png", Mask: "mask.png", Target: 10}
	if err := s.castOwn(t.Context()); !errors.Is(err, sanitize.ErrOptions) {
		t.Errorf("a target that is no class: %v", err)
	}
	s.Trigger = nil

	broken := filepath.Join(dir, "test", d.Classes[0], "00000.png")
	image, err := os.ReadFile(broken)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, bytes.TrimSuffix(image, image[len(image)/2:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.castOwn(t.Context()); !errors.Is(err, data.ErrCorrupt) {
		t.Errorf("a held-out image that is damaged: %v", err)
	}
}
