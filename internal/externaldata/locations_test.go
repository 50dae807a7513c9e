package externaldata

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
)

func outsideTensor(location string) []byte {
	return slices.Concat(num(1, 2), num(2, 1), str(8, "w"), msg(13, str(1, "location"), str(2, location)), msg(13, str(1, "offset"), str(2, "8")), num(14, 1))
}

func TestLocations(t *testing.T) {
	// An initializer, a sparse one, an attribute of a node, one in the graph of an attribute, a function, and the graph of a training step.
	inner := msg(1, msg(5, str(1, "value"), msg(5, outsideTensor("deep/b.bin"))))
	model := slices.Concat(num(1, 8), str(2, strings.Repeat("p", 100<<10)),
		msg(7, msg(5, outsideTensor("a.bin")), msg(5, outsideTensor("a.bin")), msg(15, msg(1, outsideTensor("../c.bin"))), msg(1, msg(5, str(1, "then"), msg(6, inner)))),
		msg(25, msg(7, msg(5, msg(10, outsideTensor("d.bin"))))), msg(20, msg(2, msg(5, outsideTensor("e.bin")))))
	want := []string{"../c.bin", "a.bin", "d.bin", "deep/b.bin", "e.bin"}
	if got, err := Locations(iotest.OneByteReader(bytes.NewReader(model)), int64(len(model))); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	var many []byte
	for i := range maxLocations + 1 {
		many = append(many, msg(5, outsideTensor(strings.Repeat("x", i+1)))...)
		many = append(many, msg(5, outsideTensor("the same"))...)
	}
	for name, c := range map[string]struct {
		model []byte
		want  error
	}{
		"cut off in a tensor":  {model[:len(model)-5], ErrMalformed},
		"cut off in a tag":     {[]byte{0x80}, ErrMalformed},
		"a group":              {[]byte{0x0b, 0x0c}, ErrMalformed},
		"a number without end": {append([]byte{8}, bytes.Repeat([]byte{0xff}, 11)...), ErrMalformed},
		"longer than the file": {[]byte{0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, ErrMalformed},
		"behind its message":   {[]byte{0x3a, 2, 0x2a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0}, ErrMalformed},
		"field 0":              {[]byte{0x02, 0}, ErrMalformed},
		"too many files":       {msg(7, many), ErrLimit},
		"a long location":      {msg(7, msg(5, outsideTensor(strings.Repeat("x", maxText+1)))), ErrLimit},
		"too deep":             {nested(maxDepth), ErrLimit},
	} {
		if got, err := Locations(bytes.NewReader(c.model), int64(len(c.model))); !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := Locations(iotest.ErrReader(io.ErrClosedPipe), 9); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("an error of the reader is %v", err)
	}
}

// nested is a model with graphs in graphs.
func nested(depth int) []byte {
	graph := []byte{}
	for range depth {
		graph = msg(1, msg(5, msg(6, graph)))
	}
	return msg(7, graph)
}

func msg(n protowire.Number, bodies ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), slices.Concat(bodies...))
}

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func str(n protowire.Number, s string) []byte { return msg(n, []byte(s)) }
