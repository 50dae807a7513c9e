package onnx

import (
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// Hand-made messages: msg(n, …) is a length-delimited field, num(n, v) a varint field.

func msg(n protowire.Number, bodies ...[]byte) []byte {
	var body []byte
	for _, b := range bodies {
		body = append(body, b...)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), body)
}

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func str(n protowire.Number, s string) []byte { return msg(n, []byte(s)) }

// graphOf is a model with a graph of the given fields.
func graphOf(parts ...[]byte) []byte {
	return append(num(1, 8), msg(7, parts...)...)
}

// floats is a packed float_data or raw_data body.
func floats(v ...float32) []byte { return NewFloat("", nil, v).Raw }

func TestParseRefusesHostileFiles(t *testing.T) {
	tensor := func(parts ...[]byte) []byte { return graphOf(msg(5, append(parts, str(8, "w"))...)) }
	deep := []byte{}
	for range maxDepth + 1 {
		deep = msg(1, msg(5, str(1, "body"), msg(6, deep)))
	}
	external := func(entries ...[]byte) []byte {
		return tensor(append([][]byte{num(1, 4), num(2, 1), num(14, 1)}, entries...)...)
	}
	entry := func(k, v string) []byte { return msg(13, str(1, k), str(2, v)) }
	for _, c := range []struct {
		name string
		data []byte
		want error
		says string
	}{
		{"empty file", nil, ErrNotModel, "no graph"},
		{"text", []byte("import torch\nprint(1)\n"), ErrNotModel, ""},
		{"zip archive", []byte("PK\x03\x04\x14\x00\x00\x00"), ErrNotModel, ""},
		{"other protobuf", num(1, 8), ErrNotModel, "no graph"},
		{"truncated graph", graphOf(str(2, "g"))[:4], ErrNotModel, "EOF"},
		{"truncated after the graph", append(graphOf(), 0x42, 9), ErrMalformed, "EOF"},
		{"two graphs", append(graphOf(), msg(7)...), ErrMalformed, "twice"},
		{"a tag of more than 32 bits", append(graphOf(), 0xba, 0x80, 0x80, 0x80, 0x10, 0), ErrMalformed, "number"},
		{"a tag of more than 32 bits in the graph", graphOf([]byte{0xaa, 0x80, 0x80, 0x80, 0x10, 0}), ErrMalformed, "number"},
		{"a number of more than 64 bits", append(graphOf(), 0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), ErrMalformed, "overflow"},
		{"graph of wrong wire type", num(7, 1), ErrNotModel, "wire type"},
		{"truncated node", graphOf(msg(1, []byte{0x22, 5, 'C'})), ErrMalformed, "EOF"},
		{"2 GB claimed in a small tensor", tensor(num(1, 1<<29), num(2, 1), msg(9, make([]byte, 1000))), ErrMalformed, `tensor "w": `},
		{"2 GB claimed, no data", tensor(num(1, 1<<29), num(2, 1)), ErrMalformed, "the file holds none"},
		{"varint data too short", tensor(num(1, 1<<40), num(2, 7), msg(7, []byte{1, 2, 3})), ErrMalformed, "holds 3"},
		{"element count overflows", tensor(num(1, 1<<40), num(1, 1<<40), num(2, 1), msg(9, floats(1))), ErrMalformed, "overflows"},
		{"product wraps to the data", tensor(num(1, 1<<32), num(1, 1<<32), num(2, 1)), ErrMalformed, "overflows"},
		{"negative dimension", tensor(num(1, math.MaxUint64), num(2, 1), msg(9, floats(1))), ErrMalformed, "negative"},
		{"more data than claimed", tensor(num(1, 1), num(2, 1), msg(9, floats(1, 2))), ErrMalformed, "holds 2"},
		{"half an element", tensor(num(1, 1), num(2, 1), msg(9, []byte{1, 2, 3})), ErrMalformed, "whole"},
		{"data given twice", tensor(num(1, 1), num(2, 1), msg(9, floats(1)), msg(4, floats(2))), ErrMalformed, "twice"},
		{"raw data given twice", tensor(num(1, 1), num(2, 1), msg(9, floats(1)), msg(9, floats(2))), ErrMalformed, "twice"},
		{"data in another type's field", tensor(num(1, 1), num(2, 1), msg(7, []byte{1})), ErrMalformed, "field 7"},
		{"segments", tensor(num(1, 1), num(2, 1), msg(3)), ErrUnsupported, "segments"},
		{"unknown element type", tensor(num(1, 1), num(2, 77), msg(9, floats(1))), ErrUnsupported, "77"},
		{"dimensions without end", tensor(append([][]byte{num(2, 1)}, many(maxRank+1, num(1, 1))...)...), ErrLimit, "dimensions"},
		{"initializer named twice", graphOf(msg(5, num(2, 1), num(1, 0), str(8, "w")), msg(5, num(2, 1), num(1, 0), str(8, "w"))), ErrMalformed, "twice"},
		{"sparse initializer", graphOf(msg(15)), ErrUnsupported, "sparse"},
		{"graphs in graphs", graphOf(deep), ErrLimit, "nested"},
		{"attribute given twice", graphOf(msg(1, str(4, "Conv"), msg(5, str(1, "group"), num(3, 1)), msg(5, str(1, "group"), num(3, 2)))), ErrMalformed, `node "Conv": attribute group`},
		{"attribute without its tensor", graphOf(msg(1, msg(5, str(1, "value"), num(20, 4)))), ErrMalformed, "holds nothing"},
		{"attribute of list of graphs", graphOf(msg(1, msg(5, str(1, "gs"), msg(11)))), ErrUnsupported, ""},
		{"opset twice", append(graphOf(), append(msg(8, num(2, 9)), msg(8, str(1, "ai.onnx"), num(2, 17))...)...), ErrMalformed, "versions 9 and 17"},
		{"external: parent folder", external(entry("location", "../w.bin")), ErrExternal, "leaves"},
		{"external: hidden parent folder", external(entry("location", "a/../../w.bin")), ErrExternal, "leaves"},
		{"external: absolute path", external(entry("location", "/etc/passwd")), ErrExternal, "leaves"},
		{"external: no location", external(), ErrExternal, "leaves"},
		{"external: the folder itself", external(entry("location", ".")), ErrExternal, "leaves"},
		{"external: negative offset", external(entry("location", "w"), entry("offset", "-4")), ErrExternal, "offset"},
		{"external: other length", external(entry("location", "w"), entry("length", "12")), ErrMalformed, "12"},
		{"external and inline", external(entry("location", "w"), msg(9, floats(1, 2, 3, 4))), ErrMalformed, "outside"},
	} {
		m, err := Parse(c.data)
		if m != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q with %q", c.name, err, c.want, c.says)
		}
	}
}

func many(n int, b []byte) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = b
	}
	return list
}

// A few bytes of file must not become a large heap: tiny messages are counted.
func TestParseCountsMessages(t *testing.T) {
	data := graphOf(many(maxMessages+1, msg(1))...)
	if _, err := Parse(data); !errors.Is(err, ErrLimit) {
		t.Fatalf("got %v, want %v", err, ErrLimit)
	}
}

func TestParseTruncatedAnywhere(t *testing.T) {
	m := sample().Model(17)
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		got, err := Parse(data[:n])
		if err == nil && Equal(got, m) { // cut between top-level fields is a model, but never the same one
			t.Errorf("the first %d of %d bytes read as the whole model", n, len(data))
		}
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotModel) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// Every way of keeping elements reads as the same tensor.
func TestTensorFields(t *testing.T) {
	packed := func(n protowire.Number, v ...uint64) []byte {
		var b []byte
		for _, x := range v {
			b = protowire.AppendVarint(b, x)
		}
		return msg(n, b)
	}
	minus := func(v int64) uint64 { return uint64(v) }
	fixed32 := func(n protowire.Number, v float32) []byte {
		return protowire.AppendFixed32(protowire.AppendTag(nil, n, protowire.Fixed32Type), math.Float32bits(v))
	}
	want := []float64{1, -2, 3}
	for _, c := range []struct {
		name string
		typ  DataType
		data [][]byte
		want []float64
	}{
		{"raw float", Float, [][]byte{msg(9, floats(1, -2, 3))}, want},
		{"packed float", Float, [][]byte{msg(4, floats(1, -2, 3))}, want},
		{"float in pieces", Float, [][]byte{msg(4, floats(1)), fixed32(4, -2), msg(4, floats(3))}, want},
		{"packed double", Double, [][]byte{msg(10, NewDouble("", nil, want).Raw)}, want},
		{"int64", Int64, [][]byte{packed(7, 1, minus(-2), 3)}, want},
		{"int64 in pieces", Int64, [][]byte{num(7, 1), packed(7, minus(-2), 3)}, want},
		{"int32", Int32, [][]byte{packed(5, 1, minus(-2), 3)}, want},
		{"int8", Int8, [][]byte{packed(5, 1, minus(-2), 3)}, want},
		{"int16", Int16, [][]byte{packed(5, 1, minus(-2), 3)}, want},
		{"uint8", Uint8, [][]byte{packed(5, 1, 254, 3)}, []float64{1, 254, 3}},
		{"uint64", Uint64, [][]byte{packed(11, 1, 1<<63, 3)}, []float64{1, 1 << 63, 3}},
		{"bool", Bool, [][]byte{packed(5, 1, 0, 1)}, []float64{1, 0, 1}},
		{"float16 bits", Float16, [][]byte{packed(5, 0x3c00, 0xc000, 0x4200)}, want},
		{"bfloat16 bits", BFloat16, [][]byte{packed(5, 0x3f80, 0xc000, 0x4040)}, want},
	} {
		parts := append([][]byte{num(1, 3), num(2, uint64(c.typ)), str(8, "w")}, c.data...)
		data := graphOf(msg(5, parts...))
		m, err := Parse(data)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := m.Graph.Initializer("w").Doubles()
		for i := range c.want {
			if got[i] != c.want[i] {
				t.Errorf("%s: got %v, want %v", c.name, got, c.want)
				break
			}
		}
		checkRewriteKeepsPieces(t, c.name, m, data)
	}
}

// checkRewriteKeepsPieces writes the elements in reverse and back again: the file must be the first one to the byte.
func checkRewriteKeepsPieces(t *testing.T, name string, m *Model, data []byte) {
	t.Helper()
	w := m.Graph.Initializer("w")
	size := int(w.Type.Size())
	reversed := &Tensor{Name: "w", Type: w.Type, Shape: w.Shape}
	for i := len(w.Raw) - size; i >= 0; i -= size {
		reversed.Raw = append(reversed.Raw, w.Raw[i:i+size]...)
	}
	out, err := m.Rewrite(map[string]*Tensor{"w": reversed})
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	turned, err := Parse(out)
	if err != nil || string(turned.Graph.Initializer("w").Raw) != string(reversed.Raw) {
		t.Errorf("%s: reversed elements read back as %v (%v)", name, turned.Graph.Initializer("w").Doubles(), err)
		return
	}
	back, err := turned.Rewrite(map[string]*Tensor{"w": w})
	if err != nil || string(back) != string(data) {
		t.Errorf("%s: rewritten twice the file changes: %x, was %x (%v)", name, back, data, err)
	}
}
