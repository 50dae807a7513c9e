package data

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hugePNG is a few bytes that claim an image of w x h pixels.
func hugePNG(w, h uint32) []byte {
	head := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	head = append(binary.BigEndian.AppendUint32(head, h), 8, 2, 0, 0, 0)
	out := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n"), 13)
	out = append(out, head...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(head))
}

func pngOf(t testing.TB, w, h int) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := png.Encode(&buf, image.NewRGBA(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Everything that is wrong with a dataset is an error of the right kind that names the culprit.
func TestOpenRefuses(t *testing.T) {
	d := noise(t, 8, 2, 4, 4, 3)
	good := items(t, d)
	with := func(more ...item) []item { return slices.Concat(good, more) }
	plain, packed := tarOf(t, good), gzipOf(t, tarOf(t, good))
	cifar := cifarOf(noise(t, 10, 10, 32, 32, 3))
	gray := noise(t, 6, 2, 4, 4, 1)
	images, labels := idxOf(gray)
	changed := func(b []byte, at int, v byte) []byte { b = bytes.Clone(b); b[at] = v; return b }
	large := write(t, good...)

	for _, tt := range []struct {
		name string
		path string
		o    Options
		kind error
		say  string // what the message must contain
	}{
		{"absent", filepath.Join(t.TempDir(), "no.tar"), Options{}, os.ErrNotExist, "no.tar"},
		{"empty folder", t.TempDir(), Options{}, ErrFormat, "no image"},
		{"text file", lone(t, "a.txt", []byte("hello")), Options{}, ErrFormat, "a.txt"},
		{"one class", write(t, good[:4]...), Options{}, ErrClasses, `"class0"`},
		{"image without class", write(t, with(item{"stray.png", good[0].data})...), Options{}, ErrClasses, "stray.png"},
		{"two formats", write(t, with(item{"data_batch_1.bin", cifar})...), Options{}, ErrFormat, "one format"},
		{"damaged image", write(t, with(item{"class1/bad.png", good[0].data[:40]})...), Options{}, ErrCorrupt, "class1/bad.png"},
		{"no image", write(t, with(item{"class1/bad.jpg", []byte("text")})...), Options{}, ErrFormat, "class1/bad.jpg"},
		{"empty image", lone(t, "a.zip", zipOf(t, with(item{"class1/bad.jpg", nil}))), Options{}, ErrFormat, "class1/bad.jpg"},
		{"TIFF", write(t, with(item{"class1/a.tiff", []byte("II*\x00")})...), Options{}, ErrFormat, "class1/a.tiff"},
		{"other size", write(t, with(item{"class1/wide.png", pngOf(t, 5, 4)})...), Options{}, ErrMixed, "wide.png"},
		{"colour among grey", write(t, slices.Concat(items(t, gray), []item{{"class1/red.png", pngOf(t, 4, 4)}})...), Options{}, ErrMixed, "3 channels"},
		{"huge side", lone(t, "a.tar", tarOf(t, with(item{"class1/huge.png", hugePNG(1<<20, 1)}))), Options{}, ErrLimit, "class1/huge.png"},
		{"huge area", lone(t, "a.tar", tarOf(t, with(item{"class1/huge.png", hugePNG(16000, 16000)}))), Options{Height: 4, Width: 4, Channels: 3}, ErrLimit, "class1/huge.png"},
		{"huge file", lone(t, "a.tgz", gzipOf(t, tarOf(t, with(item{"class1/z.png", make([]byte, maxImageFile+1)})))), Options{}, ErrLimit, "class1/z.png"},
		{"more than the memory allowed", large, Options{MaxBytes: 100}, ErrLimit, "100 bytes"},
		{"limit below the classes", large, Options{Limit: 1}, ErrOption, "2 classes"},
		{"two channels", large, Options{Channels: 2}, ErrFormat, "2 channels"},
		{"negative size", large, Options{Height: -1}, ErrOption, "negative"},

		{"tar cut in an image", lone(t, "a.tar", plain[:700]), Options{}, ErrCorrupt, "a.tar"},
		{"tar cut between entries", lone(t, "a.tar", plain[:2048]), Options{}, ErrCorrupt, "end marker"},
		{"tar.gz cut", lone(t, "a.tar.gz", packed[:len(packed)/2]), Options{}, ErrCorrupt, "truncated"},
		{"tar.gz without its checksum", lone(t, "a.tar.gz", packed[:len(packed)-6]), Options{}, ErrCorrupt, "a.tar.gz"},
		{"tar.gz that is no gzip", lone(t, "a.tar.gz", plain), Options{}, ErrCorrupt, "gzip"},
		{"two tars in one", lone(t, "a.tar", slices.Concat(plain, plain)), Options{}, ErrCorrupt, "concatenated"},
		{"entry twice in a tar", lone(t, "a.tar", tarOf(t, with(good[3]))), Options{}, ErrCorrupt, good[3].name},
		{"entry twice in a zip", lone(t, "a.zip", zipOf(t, with(good[3]))), Options{}, ErrCorrupt, good[3].name},
		{"zip cut", lone(t, "a.zip", zipOf(t, good)[:500]), Options{}, ErrCorrupt, "a.zip"},
		{"zip bomb", lone(t, "a.zip", zipBomb(t)), Options{}, ErrLimit, "times its size"},
		{"tar bomb", lone(t, "a.tar.gz", tarBomb(t)), Options{}, ErrLimit, "times as many"},
		{"encrypted zip", lone(t, "a.zip", encrypted(t)), Options{}, ErrFormat, "password"},
		{"link in a tar", lone(t, "a.tar", linked(t)), Options{}, ErrFormat, "class0/link.png"},
		{"empty class in a tar", lone(t, "a.tar", emptyClass(t, good)), Options{}, ErrClasses, "class9"},

		{"CIFAR cut", lone(t, "data_batch_1.bin", cifar[:len(cifar)-1]), Options{}, ErrCorrupt, "data_batch_1.bin"},
		{"CIFAR label", lone(t, "data_batch_1.bin", changed(cifar, 0, 10)), Options{}, ErrCorrupt, "label 10"},
		{"CIFAR empty", lone(t, "data_batch_1.bin", nil), Options{}, ErrCorrupt, "0 bytes"},
		{"CIFAR names", write(t, item{"a.bin", cifar}, item{cifarMeta, []byte("cat dog")}), Options{}, ErrClasses, cifarMeta},
		{"CIFAR too large", lone(t, "a.bin", cifar), Options{MaxBytes: 9000}, ErrLimit, "9000 bytes"},

		{"IDX without labels", lone(t, "x-images-idx3-ubyte", images), Options{}, ErrCorrupt, "x-labels-idx1-ubyte"},
		{"IDX labels alone", lone(t, "x-labels-idx1-ubyte", labels), Options{}, ErrFormat, "images"},
		{"IDX cut", write(t, item{"x-images-idx3-ubyte", images[:50]}, item{"x-labels-idx1-ubyte", labels}), Options{}, ErrCorrupt, "x-images"},
		{"IDX with a tail", write(t, item{"x-images-idx3-ubyte", append(images, 0)}, item{"x-labels-idx1-ubyte", labels}), Options{}, ErrCorrupt, "follow"},
		{"IDX counts", write(t, item{"x-images-idx3-ubyte", images}, item{"x-labels-idx1-ubyte", append([]byte{0, 0, 8, 1, 0, 0, 0, 5}, 0, 1, 0, 1, 0)}), Options{}, ErrCorrupt, "6 images but 5 labels"},
		{"IDX of floats", write(t, item{"x-images-idx3-ubyte", changed(images, 2, 0x0d)}, item{"x-labels-idx1-ubyte", labels}), Options{}, ErrFormat, "unsigned bytes"},
		{"IDX claims much", write(t, item{"x-images-idx3-ubyte", changed(images, 5, 0xff)}, item{"x-labels-idx1-ubyte", labels}), Options{}, ErrCorrupt, "truncated"},
		{"IDX gzip claims much", write(t, item{"x-images-idx3-ubyte.gz", gzipOf(t, changed(images, 5, 0xff))}, item{"x-labels-idx1-ubyte", labels}), Options{}, ErrCorrupt, "truncated"},
		{"IDX claims more than the limit", write(t, item{"x-images-idx3-ubyte", changed(images, 4, 0xff)}, item{"x-labels-idx1-ubyte", labels}), Options{}, ErrLimit, "exceed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Open(context.Background(), tt.path, tt.o)
			if err == nil {
				t.Fatalf("accepted as %s", d)
			}
			if !errors.Is(err, tt.kind) {
				t.Errorf("not a case of %q: %v", tt.kind, err)
			}
			if !strings.Contains(err.Error(), tt.say) || !strings.Contains(err.Error(), tt.path) {
				t.Errorf("%q does not say %q and name the dataset", err, tt.say)
			}
			t.Log(err)
		})
	}
}

func TestFolderLinks(t *testing.T) {
	list := items(t, noise(t, 8, 2, 4, 4, 3))
	dir := write(t, list...)
	elsewhere := lone(t, "x.png", list[0].data)
	if err := os.Symlink(elsewhere, filepath.Join(dir, "class0", "linked.png")); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if d := mustOpen(t, dir, Options{}); d.Len() != 9 {
		t.Errorf("%s: a linked image counts", d)
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(dir, root); err != nil {
		t.Fatal(err)
	}
	if d := mustOpen(t, root, Options{}); d.Len() != 9 {
		t.Errorf("%s: the dataset itself may be a link", d)
	}
	if err := os.Symlink(filepath.Join(dir, "class1"), filepath.Join(dir, "class2")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), dir, Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "class2") {
		t.Errorf("a linked class folder: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "class2")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "class2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), dir, Options{}); !errors.Is(err, ErrClasses) || !strings.Contains(err.Error(), "class2") {
		t.Errorf("an empty class folder: %v", err)
	}
}

// zipBomb declares far more than it holds.
func zipBomb(t testing.TB) []byte {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, name := range []string{"a/1.png", "b/1.png"} {
		e, err := w.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Deflate, CompressedSize64: 1, UncompressedSize64: 1 << 32})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// tarBomb unpacks to more than ratioFree bytes of zeros; a gzip file may be many gzip files in a row.
func tarBomb(t testing.TB) []byte {
	const size = 60 << 20
	zeros := gzipOf(t, make([]byte, size))
	var out []byte
	for i := range ratioFree/size + 2 {
		var head bytes.Buffer
		w := tar.NewWriter(&head)
		if err := w.WriteHeader(&tar.Header{Name: "a/" + string(rune('a'+i)) + ".png", Size: size}); err != nil {
			t.Fatal(err)
		}
		out = slices.Concat(out, gzipOf(t, head.Bytes()), zeros)
	}
	return out
}

func encrypted(t testing.TB) []byte {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	e, err := w.CreateRaw(&zip.FileHeader{Name: "a/1.png", Flags: 1, CompressedSize64: 1, UncompressedSize64: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func linked(t testing.TB) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "class0/link.png", Linkname: "/etc/hostname", Typeflag: tar.TypeSymlink}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func emptyClass(t testing.TB, good []item) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "class9/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return append(buf.Bytes(), tarOf(t, good)...)
}
