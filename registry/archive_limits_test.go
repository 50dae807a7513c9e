package registry

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// Archives that expand to more than the budget, whatever compresses them, and archives of more entries than are taken, are not listed; what just fits is.
func TestArchiveLimits(t *testing.T) {
	onnx := string(model("m"))
	zeros := strings.Repeat("\x00", 1<<20)
	bomb := tarOf(t, "m.onnx", onnx, "zeros", zeros)
	for name, layer := range map[string][]byte{"plain": bomb, "gzip": gzipOf(t, bomb), "zstd": zstdOf(t, bomb)} {
		if _, err := listArchive(bytes.NewReader(layer), 1<<20); !errors.Is(err, errTooLarge) {
			t.Errorf("%s, over the budget: %v", name, err)
		}
		if files, err := listArchive(bytes.NewReader(layer), int64(len(bomb))+1); err != nil || len(files) != 2 {
			t.Errorf("%s, within the budget: %v, %v", name, files, err)
		}
	}
	many := func(entries int) io.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range entries {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint("d/", i), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	if _, err := listArchive(many(maxEntries), 1<<40); err != nil {
		t.Errorf("%d entries: %v", maxEntries, err)
	}
	if _, err := listArchive(many(maxEntries+2), 1<<40); !errors.Is(err, errTooLarge) {
		t.Errorf("%d entries: %v", maxEntries+2, err)
	}
}
