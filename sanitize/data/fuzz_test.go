package data

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// checkDataset holds for whatever was read.
func checkDataset(t *testing.T, d *Dataset, err error) {
	if err != nil {
		return
	}
	if d.Len() == 0 || len(d.Classes) < 2 || len(d.pixels) != d.Len()*d.Size() {
		t.Fatalf("%s with %d bytes of pixels", d, len(d.pixels))
	}
	for i := range d.Len() {
		if px, label := d.At(i); len(px) != d.Size() || label < 0 || label >= len(d.Classes) {
			t.Fatalf("image %d: %d bytes, label %d", i, len(px), label)
		}
	}
}

// small keeps a fuzzer's datasets small.
var small = Options{Height: 4, Width: 4, Channels: 3, MaxBytes: 1 << 22}

func FuzzTar(f *testing.F) {
	list := items(f, noise(f, 4, 2, 4, 4, 3))
	f.Add(tarOf(f, list), false)
	f.Add(gzipOf(f, tarOf(f, list)), true)
	f.Add(tarOf(f, list)[:1500], false)
	f.Add(emptyClass(f, list), false)
	f.Add(linked(f), false)
	f.Fuzz(func(t *testing.T, data []byte, zipped bool) {
		c := tarball{open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, size: int64(len(data)), gzip: zipped}
		d, _, err := openIn(context.Background(), c, small, trainPart)
		checkDataset(t, d, err)
	})
}

func FuzzZip(f *testing.F) {
	list := items(f, noise(f, 4, 2, 4, 4, 3))
	f.Add(zipOf(f, list))
	f.Add(zipOf(f, list)[:300])
	f.Add(zipBomb(f))
	f.Add(encrypted(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := newZip(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		d, _, err := openIn(context.Background(), c, small, trainPart)
		checkDataset(t, d, err)
	})
}

// heap is a container in memory.
type heap []item

func (h heap) Close() error { return nil }

func (h heap) files(context.Context) ([]file, error) {
	var list []file
	for _, f := range h {
		list = append(list, file{name: f.name, size: int64(len(f.data))})
	}
	return list, nil
}

func (h heap) load(_ context.Context, want map[string]int, limit int64, each func(int, func() ([]byte, error)) error) error {
	for _, f := range h {
		if i, ok := want[f.name]; ok {
			if err := each(i, func() ([]byte, error) { return readAll(bytes.NewReader(f.data), int64(len(f.data)), limit) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func FuzzIDX(f *testing.F) {
	images, labels := idxOf(noise(f, 6, 2, 4, 4, 1))
	f.Add(images, labels)
	f.Add(gzipOf(f, images), gzipOf(f, labels))
	f.Add(images[:20], labels)
	f.Add([]byte{0, 0, 8, 4, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6}, []byte{0, 0, 8, 1, 0, 0, 0, 2, 0, 1})
	f.Fuzz(func(t *testing.T, images, labels []byte) {
		d, _, err := openIn(context.Background(), heap{{"images-idx3-ubyte", images}, {"labels-idx1-ubyte", labels}}, small, trainPart)
		checkDataset(t, d, err)
	})
}

func FuzzCIFAR(f *testing.F) {
	f.Add(cifarOf(noise(f, 3, 3, 32, 32, 3)), []byte("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n"))
	f.Add(cifarOf(noise(f, 2, 2, 32, 32, 3))[:4000], []byte(""))
	f.Add([]byte{}, []byte("cat dog"))
	f.Fuzz(func(t *testing.T, batch, names []byte) {
		d, _, err := openIn(context.Background(), heap{{"data_batch_1.bin", batch}, {cifarMeta, names}}, small, trainPart)
		checkDataset(t, d, err)
	})
}

func FuzzImage(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "libjpeg", "*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		blob, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	f.Add(hugePNG(16000, 16000))
	f.Fuzz(func(t *testing.T, blob []byte) {
		for _, alpha := range []bool{false, true} {
			r, err := decodeImage(blob, alpha)
			if err != nil {
				continue
			}
			if len(r.pix) != r.h*r.w*r.c {
				t.Fatalf("%dx%dx%d image of %d bytes", r.h, r.w, r.c, len(r.pix))
			}
			r.fit(make([]byte, 8*8*3), 8, 8, 3, Crop)
		}
	})
}
