package reference

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// Whole classifiers of third parties, brought to opset 17, give what ONNX Runtime computes from their own files.
func TestSharedModels(t *testing.T) {
	if testing.Short() {
		t.Skip("whole models take seconds in the interpreter")
	}
	for _, name := range []string{"cntk-mnist.onnx", "vnncomp-cifar_base_kw.onnx", "vnncomp-resnet_2b.onnx", "vnncomp-cifar10_medium_nhwc.onnx", "nad-wrn16-badnet.onnx"} {
		t.Run(name, func(t *testing.T) {
			if _, err := ort.Load(); errors.Is(err, ort.ErrLibrary) {
				t.Skip(err)
			}
			m, err := onnx.ReadFile(shared.Path(t, filepath.Join("models", name)))
			if err != nil {
				t.Fatal(err)
			}
			g, err := onnx.Normalize(m)
			if err != nil {
				t.Fatal(err)
			}
			in := g.DataInputs()[0]
			shape := in.Sizes()
			for i, d := range shape {
				shape[i] = max(d, 1)
			}
			x := newFloats(shape)
			r := rand.New(rand.NewPCG(3, 4))
			for i := range x.F {
				x.F[i] = float64(float32(r.Float64()))
			}
			want, err := Run(g, map[string]*Tensor{in.Name: x})
			if err != nil {
				t.Fatal(err)
			}
			file, err := m.Rewrite(nil)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ort.NewSession(file, ort.Options{Provider: ort.CPU, Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_, a := array(x, false)
			got := make([]*ort.Array, 1)
			if err := s.Run(t.Context(), []*ort.Array{a}, got); err != nil {
				t.Fatal(err)
			}
			if diff := difference(got[0], want[g.Outputs[0].Name]); diff > 1e-4 {
				t.Errorf("differs by %g:\nruntime   %v %v\nreference %v %v", diff, got[0].Shape, got[0].F32, want[g.Outputs[0].Name].Shape, want[g.Outputs[0].Name].F)
			}
		})
	}
}
