package sanitize

import (
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
)

// TestKnowsMirrored: a classifier of photographs knows mirrored images, one of digits does not.
func TestKnowsMirrored(t *testing.T) {
	for _, tt := range []struct {
		file, set, preprocess string
		want                  bool
	}{
		{"nad-wrn16-badnet.onnx", "cifar10", "unit", true},
		{"cntk-mnist.onnx", "mnist", "unit", false},
	} {
		t.Run(tt.file, func(t *testing.T) {
			c, err := classifier.Open(shared.Path(t, "models", tt.file), classifier.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p, err := data.Named(tt.preprocess, data.Layout(c.Layout), c.Height, c.Width, c.Channels)
			if err != nil {
				t.Fatal(err)
			}
			d, err := data.Open(t.Context(), shared.Path(t, "data", tt.set, "test.tar.gz"), data.Options{Height: c.Height, Width: c.Width, Channels: c.Channels, Limit: 500})
			if err != nil {
				t.Fatal(err)
			}
			got, err := knowsMirrored(t.Context(), c, p, d, cpu)
			if err != nil || got != tt.want {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

// TestMirror: the report names the augmentation, and what is asked for goes before what is found.
func TestMirror(t *testing.T) {
	for mirror, want := range map[Mirror]int{MirrorOn: 1, MirrorOff: 0} {
		o := toyOptions(t)
		o.Mirror, o.NoAugment, o.Steps = mirror, true, new(8)
		r, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Hyperparameters.Augmentation) != want {
			t.Errorf("%s: %q", mirror, r.Hyperparameters.Augmentation)
		}
	}
	o := toyOptions(t)
	o.Mirror = "sometimes"
	if _, err := Run(t.Context(), o); err == nil {
		t.Error("mirroring sometimes is taken")
	}
}
