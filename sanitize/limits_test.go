package sanitize

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
)

func TestLimits(t *testing.T) {
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, 1, 4)
	weight := onnx.NewFloat("w", []int64{4}, nil)
	weight.Raw, weight.External = nil, &onnx.External{Location: "w.bin"}
	b.Const(weight)
	b.Const(onnx.NewFloat("v", []int64{4}, make([]float32, 4)))
	b.Named("y", "Add", []string{b.Op("Mul", []string{"x", "w"}), "v"})
	b.Output("y", onnx.Float, 1, 4)
	text, err := b.Model(onnx.Opset).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	for file, content := range map[string][]byte{path: text, filepath.Join(dir, "w.bin"): make([]byte, 16)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := int64(len(text))
	for _, fits := range []Limits{{}, {Bytes: file + 16, Nodes: 2, Tensors: 2}} {
		if _, err := fits.read(path); err != nil {
			t.Errorf("%+v: %v", fits, err)
		}
	}
	for word, over := range map[string]Limits{"bytes, at": {Bytes: file - 1}, "external data, at": {Bytes: file + 15}, "nodes": {Nodes: 1}, "tensors": {Tensors: 1}} {
		_, err := over.read(path)
		if !errors.Is(err, onnx.ErrLimit) || !strings.Contains(err.Error(), word) {
			t.Errorf("%+v: %v", over, err)
		}
		if _, err := Run(t.Context(), Options{Model: path, Output: filepath.Join(dir, "out.onnx"), Data: dir, Limits: over}); !errors.Is(err, onnx.ErrLimit) {
			t.Errorf("a run: %v", err)
		}
	}
}
