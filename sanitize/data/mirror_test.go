package data

import (
	"bytes"
	"testing"
)

func TestMirrored(t *testing.T) {
	d, err := New("two", []string{"a", "b"}, 2, 2, 3, []byte{
		1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
		21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
	}, []int32{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	m := d.view([]int32{1, 0}).Mirrored()
	px, label := m.At(0)
	if label != 1 || !bytes.Equal(px, []byte{24, 25, 26, 21, 22, 23, 30, 31, 32, 27, 28, 29}) {
		t.Errorf("class %d, %v", label, px)
	}
	if px, _ := m.Mirrored().At(1); !bytes.Equal(px, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}) {
		t.Errorf("mirrored twice: %v", px)
	}
}
