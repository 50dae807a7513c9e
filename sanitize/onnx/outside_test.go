package onnx_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"grindstone/sanitize/onnx"
)

// TestWriteOutside: the same model comes back from two files.
func TestWriteOutside(t *testing.T) {
	b := onnx.NewBuilder()
	large := make([]float32, 1500)
	for i := range large {
		large[i] = float32(i)
	}
	b.Input("x", onnx.Float, 1500)
	y := b.Op("Add", []string{"x", b.Const(onnx.NewFloat("large", []int64{1500}, large))})
	y = b.Op("Mul", []string{y, b.Const(onnx.NewFloat("small", nil, []float32{3}))})
	b.Output(b.Op("Sub", []string{y, b.Const(onnx.NewFloat("second", []int64{1500}, slices.Repeat([]float32{7}, 1500)))}), onnx.Float, 1500)
	m := b.Model(17)
	want, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := m.WriteOutside(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "weights.bin")); err != nil || info.Size() != 4*4096 {
		t.Errorf("two tensors of 6,000 bytes take %d bytes in whole pages (%v)", info.Size(), err)
	}
	back, err := onnx.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, tensor := range back.Graph.Initializers {
		if outside := tensor.External != nil; outside != (tensor.Name != "small") {
			t.Errorf("%s: outside: %v", tensor.Name, outside)
		}
		if !slices.Equal(tensor.Floats(), m.Graph.Initializers[i].Floats()) {
			t.Errorf("%s: other numbers came back", tensor.Name)
		}
	}
	if again, err := m.Marshal(); err != nil || !slices.Equal(again, want) {
		t.Errorf("the model was changed (%v)", err)
	}
	if !m.FitsMessage() {
		t.Error("a small model does not fit")
	}
}
