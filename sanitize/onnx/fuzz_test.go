package onnx

import (
	"bytes"
	"testing"
)

func seeds(f *testing.F) {
	f.Helper()
	data, err := sample().Model(17).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(handmade())
	f.Add(append(graphOf(str(2, "g")), 0xba, 0x80, 0x80, 0x80, 0x10, 0))                                 // a graph to readers that drop bits of the tag
	f.Add(graphOf(msg(1, str(1, "x"), str(2, "y"), str(4, "f"), str(7, "local")), msg(11, str(1, "x")))) // calls a function that is not there
	f.Add(graphOf(msg(5, num(1, 3), num(2, 7), str(8, "w"), msg(7, []byte{1, 2, 3})), msg(11, str(1, "x"), msg(2, msg(1, num(1, 1), msg(2, msg(1, str(2, "N"))))))))
	f.Add(graphOf(msg(5, num(1, 2), num(2, 1), str(8, "w"), msg(13, str(1, "location"), str(2, "w.bin")), num(14, 1))))
}

// FuzzParse: whatever is accepted can be written and read again without loss.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		out, err := m.Marshal()
		if err != nil {
			return // values that are not tensors
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("written model is not read: %v", err)
		}
		if !Equal(m, again) {
			t.Fatal("written model differs")
		}
	})
}

// FuzzRewrite: any accepted file rewritten with its own weights stays the same, and with others changes and can be changed back to a model
// with the same content.
func FuzzRewrite(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		same, other := map[string]*Tensor{}, map[string]*Tensor{}
		for _, w := range m.Graph.Initializers {
			if w.Name == "" || w.External != nil || w.Type == String {
				continue
			}
			same[w.Name] = w
			flipped := *w
			flipped.Raw = bytes.Clone(w.Raw)
			for i := range flipped.Raw {
				flipped.Raw[i] ^= 1
			}
			other[w.Name] = &flipped
		}
		for _, weights := range []map[string]*Tensor{nil, same} {
			out, err := m.Rewrite(weights)
			if err != nil || !bytes.Equal(out, data) {
				t.Fatalf("rewritten with the same %d weights: %v, equal %v", len(weights), err, bytes.Equal(out, data))
			}
		}
		out, err := m.Rewrite(other)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := Parse(out)
		if err != nil {
			t.Fatalf("rewritten model is not read: %v", err)
		}
		for name, w := range other {
			if got := changed.Graph.Initializer(name); got == nil || !bytes.Equal(got.Raw, w.Raw) {
				t.Fatalf("%q was not replaced", name)
			}
		}
		out, err = changed.Rewrite(same)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Marshal(); err == nil && !Equal(m, back) {
			t.Fatal("written back, the model differs")
		}
	})
}
