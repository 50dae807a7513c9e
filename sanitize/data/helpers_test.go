package data

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// noise is a dataset of n random images of the classes named class0, class1, ...
func noise(t testing.TB, n, classes, h, w, c int) *Dataset {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	pixels, labels := make([]byte, n*h*w*c), make([]int32, n)
	for i := range pixels {
		pixels[i] = byte(rng.Uint32())
	}
	names := make([]string, classes)
	for i := range names {
		names[i] = fmt.Sprintf("class%d", i)
	}
	for i := range labels {
		labels[i] = int32(i % classes)
	}
	d, err := New("noise", names, h, w, c, pixels, labels)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// item is a file of an archive.
type item struct {
	name string
	data []byte
}

// items are the dataset's images as PNG files.
func items(t testing.TB, d *Dataset) []item {
	t.Helper()
	var list []item
	if err := d.each(func(name string, data []byte) error {
		list = append(list, item{name, bytes.Clone(data)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func tarOf(t testing.TB, list []item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range list {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zipOf(t testing.TB, list []item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, f := range list {
		e, err := w.Create(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// cifarOf is the dataset as CIFAR-10 records.
func cifarOf(d *Dataset) []byte {
	var out []byte
	planes := make([]byte, d.Size())
	p := Preprocess{Layout: NCHW, Height: d.Height, Width: d.Width, Channels: 3}
	for i := range d.Len() {
		px, label := d.At(i)
		p.Pack(planes, px)
		out = append(append(out, byte(label)), planes...)
	}
	return out
}

// idxOf is the dataset as an IDX pair.
func idxOf(d *Dataset) (images, labels []byte) {
	images = []byte{0, 0, idxBytes, 3}
	for _, n := range []int{d.Len(), d.Height, d.Width} {
		images = binary.BigEndian.AppendUint32(images, uint32(n))
	}
	labels = binary.BigEndian.AppendUint32([]byte{0, 0, idxBytes, 1}, uint32(d.Len()))
	for i := range d.Len() {
		px, label := d.At(i)
		images, labels = append(images, px...), append(labels, byte(label))
	}
	return images, labels
}

// write puts files below a new folder and returns its path.
func write(t testing.TB, list ...item) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range list {
		name := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// lone writes one file and returns its path.
func lone(t testing.TB, name string, data []byte) string {
	t.Helper()
	return filepath.Join(write(t, item{name, data}), name)
}

func mustOpen(t testing.TB, path string, o Options) *Dataset {
	t.Helper()
	d, err := Open(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// same fails where two datasets differ in images, labels, classes or their order.
func same(t *testing.T, got, want *Dataset) {
	t.Helper()
	if fmt.Sprint(got.Classes) != fmt.Sprint(want.Classes) || got.Len() != want.Len() {
		t.Fatalf("got %s, want %s", got, want)
	}
	for i := range want.Len() {
		a, la := got.At(i)
		b, lb := want.At(i)
		if la != lb || !bytes.Equal(a, b) {
			t.Fatalf("row %d differs (labels %d and %d)", i, la, lb)
		}
	}
}
