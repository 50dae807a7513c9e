package demo

import (
	"path/filepath"
	"testing"
	"time"

	"grindstone/demo/glyphs"
	"grindstone/sanitize/ort"
)

func TestVictim(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a network")
	}
	d, err := glyphs.Generate(11000, 1)
	if err != nil {
		t.Fatal(err)
	}
	clean, test, err := d.Split(0.1, 1)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	v, err := trainVictim(t.Context(), filepath.Join(t.TempDir(), "victim.onnx"), clean, test, ort.Options{Provider: ort.CPU}, 1, func(step, steps int, a float64) {
		if step%50 == 0 {
			t.Logf("%d/%d accuracy %.3f %v", step, steps, a, time.Since(start).Round(time.Millisecond))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v rounds %d CDA %v ASR %v ARR %v", time.Since(start), v.Rounds, v.CDA, v.ASR, v.ARR)
}
