package data

import (
	"context"
	"testing"

	"grindstone/internal/shared"
)

// The digests were computed when the files were first read; they change when a decoder or the canonical form does.
func TestOpenCIFAR10AndMNIST(t *testing.T) {
	for _, tt := range []struct {
		path    []string
		h, c    int
		classes int
		first   string
	}{
		{[]string{"data", "cifar10", "test.tar.gz"}, 32, 3, 10, "airplane"},
		{[]string{"data", "mnist", "test.tar.gz"}, 28, 1, 10, "0"},
	} {
		p := shared.Path(t, tt.path...)
		var last, total int
		d, err := Open(context.Background(), p, Options{Progress: func(n, of int) { last, total = n, of }})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(d, d.Digest())
		if d.Len() != 10000 || d.Height != tt.h || d.Width != tt.h || d.Channels != tt.c || len(d.Classes) != tt.classes || d.Classes[0] != tt.first {
			t.Errorf("%s", d)
		}
		if last != 10000 || total != 10000 {
			t.Errorf("progress ended at %d of %d", last, total)
		}
	}
}
