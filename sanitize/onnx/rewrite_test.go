package onnx

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// handmade holds weights in all the places and forms, fields in odd order, unknown fields and an overlong length.
func handmade() []byte {
	inline := msg(5, str(8, "w"), str(12, "doc of w"), msg(9, floats(1, 2)), num(2, 1), num(1, 2), num(99, 5))
	varints := msg(5, num(1, 2), num(2, 7), str(8, "i"), num(7, 1), num(7, 300))
	constant := msg(1, str(4, "Constant"), str(2, "k"), str(6, "doc"), msg(5, str(1, "value"), msg(5, num(1, 2), num(2, 10), msg(5, []byte{0x80, 0x78, 0x81, 0x78})), num(20, 4)))
	node := append([]byte{0x0a, 0x86, 0x00}, str(4, "Relu")...) // length 6 in two bytes
	graph := append(append(append(append(str(2, "g"), inline...), constant...), node...), varints...)
	data := append(msg(1000, []byte("unknown")), msg(7, graph)...)
	return append(data, append(num(1, 8), str(6, "doc of the model")...)...)
}

func TestRewriteKeepsTheRest(t *testing.T) {
	data := handmade()
	m, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := m.Rewrite(nil); err != nil || !bytes.Equal(out, data) {
		t.Errorf("no weights: %x, want %x (%v)", out, data, err)
	}
	out, err := m.Rewrite(map[string]*Tensor{
		"w": NewFloat("", []int64{2}, []float32{3, 4}),
		"k": NewFloat("", []int64{2}, []float32{1, -1}),
		"i": NewInt64("", []int64{2}, []int64{-1, 5}),
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	if grown := len(out) - len(data); grown != 9 { // -1 takes 10 bytes instead of 1, 5 one less than 300, 0xbc00 one more than 0x3c01
		t.Errorf("the file grew by %d bytes, want 9", grown)
	}
	for _, part := range [][]byte{msg(1000, []byte("unknown")), str(6, "doc of the model"), str(12, "doc of w"), num(99, 5), append([]byte{0x0a, 0x86, 0x00}, str(4, "Relu")...), floats(3, 4)} {
		if !bytes.Contains(out, part) {
			t.Errorf("%x is not in the rewritten file", part)
		}
	}
	back, err := got.Rewrite(map[string]*Tensor{
		"w": NewFloat("", []int64{2}, []float32{1, 2}), "i": NewInt64("", []int64{2}, []int64{1, 300}),
		"k": {Type: Float16, Shape: []int64{2}, Raw: []byte{0x00, 0x3c, 0x01, 0x3c}},
	})
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("written back: %x, want %x (%v)", back, data, err)
	}
}

// TestRewriteFloats: a Constant node may hold numbers without a tensor around them: one, or a list, packed or not. Unknown fields between them stay.
func TestRewriteFloats(t *testing.T) {
	one := func(n uint8, bits ...byte) []byte { return append([]byte{n<<3 | 5}, bits...) }
	packed := msg(1, str(4, "Constant"), str(2, "p"), msg(5, str(1, "value_floats"), num(99, 5), msg(7, []byte{0, 0, 128, 63, 0, 0, 0, 64}), num(20, 6)))
	loose := msg(1, str(4, "Constant"), str(2, "l"), msg(5, str(1, "value_floats"), one(7, 0, 0, 128, 63), num(99, 5), one(7, 0, 0, 0, 64), num(20, 6)))
	single := msg(1, str(4, "Constant"), str(2, "s"), msg(5, num(20, 1), one(2, 0, 0, 128, 63), str(1, "value_float")))
	data := append(msg(7, append(append(append(str(2, "g"), packed...), loose...), single...)), num(1, 8)...)
	m, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	weights := map[string]*Tensor{"p": NewFloat("", []int64{2}, []float32{3, 4}), "l": NewFloat("", []int64{2}, []float32{5, 6}), "s": NewFloat("", nil, []float32{7})}
	out, err := m.Rewrite(weights)
	if err != nil || len(out) != len(data) {
		t.Fatalf("%d bytes where there were %d (%v)", len(out), len(data), err)
	}
	got, err := Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range got.Graph.Nodes {
		if v := constantValue(n); !bytes.Equal(v.Raw, weights[v.Name].Raw) {
			t.Errorf("%s became %v", v.Name, v.Floats())
		}
	}
	back, err := got.Rewrite(map[string]*Tensor{"p": NewFloat("", []int64{2}, []float32{1, 2}), "l": NewFloat("", []int64{2}, []float32{1, 2}), "s": NewFloat("", nil, []float32{1})})
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("written back: %x, want %x (%v)", back, data, err)
	}
	if _, err := m.Rewrite(map[string]*Tensor{"p": NewFloat("", []int64{3}, []float32{1, 2, 3})}); !errors.Is(err, ErrMismatch) {
		t.Errorf("three numbers for two: %v", err)
	}
}

func TestRewriteRefuses(t *testing.T) {
	m, err := Parse(handmade())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		weights map[string]*Tensor
		says    string
	}{
		"unknown name":    {map[string]*Tensor{"none": NewFloat("", nil, []float32{1})}, `tensor "none"`},
		"other shape":     {map[string]*Tensor{"w": NewFloat("", []int64{1, 2}, []float32{1, 2})}, "shape [1 2]"},
		"too few values":  {map[string]*Tensor{"w": NewFloat("", []int64{2}, []float32{1})}, "4 bytes"},
		"other type":      {map[string]*Tensor{"i": NewFloat("", []int64{2}, []float32{1, 2})}, "int64"},
		"beyond the type": {map[string]*Tensor{"k": NewFloat("", []int64{2}, []float32{1, 1e6})}, "too large"},
	} {
		if _, err := m.Rewrite(c.weights); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	if _, err := sample().Model(17).Rewrite(nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a built model: got %v", err)
	}
}
