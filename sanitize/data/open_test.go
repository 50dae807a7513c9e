package data

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every container of the same images gives the same rows in the same order.
func TestContainersAgree(t *testing.T) {
	list := items(t, noise(t, 40, 4, 6, 5, 3))
	folder := write(t, list...)
	want := mustOpen(t, folder, Options{})
	if want.Len() != 40 || want.Height != 6 || want.Width != 5 || want.Channels != 3 {
		t.Fatal(want)
	}
	shuffled := slices.Clone(list)
	slices.Reverse(shuffled)
	nested := []item{{"README.md", []byte("text")}, {"._junk.png", []byte("x")}, {"__MACOSX/class0/a.png", []byte("x")}}
	for _, f := range shuffled {
		nested = append(nested, item{"./some/where/" + f.name, f.data})
	}
	backslashes := make([]item, len(list))
	for i, f := range list {
		backslashes[i] = item{strings.ReplaceAll(f.name, "/", `\`), f.data}
	}
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"a.tar", tarOf(t, list)},
		{"b.tar.gz", gzipOf(t, tarOf(t, nested))},
		{"c.tgz", gzipOf(t, tarOf(t, shuffled))},
		{"d.zip", zipOf(t, nested)},
		{"e.ZIP", zipOf(t, backslashes)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			same(t, mustOpen(t, lone(t, tt.name, tt.data), Options{}), want)
		})
	}
}

func TestWriteAndReadBack(t *testing.T) {
	for _, channels := range []int{1, 3, 4} {
		d := noise(t, 30, 3, 7, 9, channels)
		dir := filepath.Join(t.TempDir(), "new")
		if err := d.WriteFolder(dir); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteFolder(dir); !errors.Is(err, ErrOption) {
			t.Errorf("a second write into the folder: %v", err)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "d.tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := d.WriteTarGz(f); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{dir, f.Name()} {
			got := mustOpen(t, p, Options{Channels: channels})
			if got.Digest() != d.Digest() {
				t.Errorf("%d channels: %s came back as %s from %s", channels, d, got, p)
			}
		}
	}
}

func TestWriteRefusesUnsafeClassNames(t *testing.T) {
	for _, class := range []string{"../up", "a/b", `a\b`, ".hidden", "/abs", ".."} {
		d, err := New("x", []string{class, "ok"}, 1, 1, 1, []byte{1, 2}, []int32{0, 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteFolder(t.TempDir()); !errors.Is(err, ErrClasses) {
			t.Errorf("class %q: %v", class, err)
		}
	}
}

func TestOpenCIFARBinary(t *testing.T) {
	d := noise(t, 50, 10, 32, 32, 3)
	train, test := cifarOf(d), cifarOf(d.Subset(20, 1))
	meta := item{"batches.meta.txt", []byte("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n")}
	half := len(train) / 2 / cifarRecord * cifarRecord
	whole := []item{meta, {"data_batch_2.bin", train[half:]}, {"data_batch_1.bin", train[:half]}, {"test_batch.bin", test}, {"readme.html", nil}}
	dir := write(t, whole...)
	want := mustOpen(t, lone(t, "all.bin", train), Options{})
	if want.Classes[0] != "airplane" || want.Digest() == d.Digest() {
		t.Errorf("classes %v", want.Classes)
	}
	want.Classes = strings.Split("abcdefghij", "")
	same(t, mustOpen(t, dir, Options{}), want)
	same(t, mustOpen(t, lone(t, "cifar-10-binary.tar.gz", gzipOf(t, tarOf(t, whole))), Options{}), want)

	one := mustOpen(t, filepath.Join(dir, "test_batch.bin"), Options{})
	if one.Len() != 20 || one.Classes[9] != "j" {
		t.Errorf("%s", one)
	}
	tr, held, err := OpenSplit(context.Background(), dir, "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, tr, want)
	same(t, held, one)
}

func TestOpenIDX(t *testing.T) {
	d := noise(t, 30, 3, 8, 7, 1)
	d.Classes = []string{"0", "1", "2"}
	images, labels := idxOf(d)
	for name, list := range map[string][]item{
		"plain":  {{"train-images-idx3-ubyte", images}, {"train-labels-idx1-ubyte", labels}},
		"gzip":   {{"train-images-idx3-ubyte.gz", gzipOf(t, images)}, {"train-labels-idx1-ubyte.gz", gzipOf(t, labels)}},
		"mixed":  {{"train-images-idx3-ubyte.gz", gzipOf(t, images)}, {"train-labels-idx1-ubyte", labels}},
		"dotted": {{"train-images.idx3-ubyte", images}, {"train-labels.idx1-ubyte", labels}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, list...)
			same(t, mustOpen(t, dir, Options{}), d)
			if name != "mixed" { // a lone file finds the labels of its own kind
				same(t, mustOpen(t, filepath.Join(dir, list[0].name), Options{}), d)
			}
			same(t, mustOpen(t, lone(t, "idx.zip", zipOf(t, list)), Options{}), d)
		})
	}
	i2, l2 := idxOf(d.Subset(9, 1))
	dir := write(t, item{"train-images-idx3-ubyte", images}, item{"train-labels-idx1-ubyte", labels},
		item{"t10k-images-idx3-ubyte", i2}, item{"t10k-labels-idx1-ubyte", l2})
	train, held, err := OpenSplit(context.Background(), dir, "", Options{Channels: 3})
	if err != nil {
		t.Fatal(err)
	}
	if train.Len() != 30 || held.Len() != 9 || held.Channels != 3 {
		t.Errorf("%s, %s", train, held)
	}
}

func TestOpenSplit(t *testing.T) {
	ctx := context.Background()
	d := noise(t, 40, 4, 6, 6, 3)
	train, held, err := d.Split(.25, 7)
	if err != nil {
		t.Fatal(err)
	}
	under := func(dir string, d *Dataset) []item {
		list := items(t, d)
		for i := range list {
			list[i].name = path.Join(dir, list[i].name)
		}
		return list
	}
	t.Run("within", func(t *testing.T) {
		for _, part := range []string{"test", "val", "Validation"} {
			dir := write(t, slices.Concat(under("set/train", train), under("set/"+part, held))...)
			tr, h, err := OpenSplit(ctx, dir, "", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if tr.Digest() != train.Digest() || h.Digest() != held.Digest() {
				t.Errorf("%s: %s, %s", part, tr, h)
			}
			if o := mustOpen(t, dir, Options{}); o.Digest() != train.Digest() {
				t.Errorf("%s: Open reads held-out images: %s", part, o)
			}
			if o, err := OpenHeldOut(ctx, dir, Options{}); err != nil || o.Digest() != held.Digest() || o.Name != filepath.Base(dir)+" (held out)" {
				t.Errorf("%s: measured on other images than the held-out ones: %v, %v", part, o, err)
			}
			_, h, err = OpenSplit(ctx, write(t, items(t, train)...), dir, Options{})
			if err != nil || h.Digest() != held.Digest() {
				t.Errorf("%s: held out are other images: %v, %v", part, h, err)
			}
		}
	})
	t.Run("two paths", func(t *testing.T) {
		tr, h, err := OpenSplit(ctx, write(t, items(t, train)...), lone(t, "held.tar", tarOf(t, items(t, held))), Options{Limit: 8})
		if err != nil {
			t.Fatal(err)
		}
		if tr.Len() != 8 || h.Len() != 8 || h.Height != 6 {
			t.Errorf("%s, %s", tr, h)
		}
	})
	t.Run("none", func(t *testing.T) {
		if _, _, err := OpenSplit(ctx, write(t, items(t, d)...), "", Options{}); !errors.Is(err, ErrNoSplit) {
			t.Error(err)
		}
	})
	t.Run("a class named train", func(t *testing.T) {
		renamed := *d
		renamed.Classes = []string{"train", "test", "ship", "car"}
		if got := mustOpen(t, write(t, items(t, &renamed)...), Options{}); got.Len() != 40 {
			t.Error(got)
		}
	})
	t.Run("other classes", func(t *testing.T) {
		other := *held
		other.Classes = []string{"class0", "class1", "class2", "dog"}
		_, _, err := OpenSplit(ctx, write(t, items(t, train)...), write(t, items(t, &other)...), Options{})
		if !errors.Is(err, ErrClasses) || !strings.Contains(err.Error(), "dog") {
			t.Error(err)
		}
	})
}

func TestOpenSizes(t *testing.T) {
	d := noise(t, 20, 2, 8, 8, 3)
	dir := write(t, items(t, d)...)
	for _, o := range []Options{{Height: 4, Width: 4}, {Height: 16, Width: 12, Channels: 1}, {Channels: 4}, {Height: 5, Fit: Crop}} {
		got := mustOpen(t, dir, o)
		want := [3]int{8, 8, 3}
		for i, n := range []int{o.Height, o.Width, o.Channels} {
			if n > 0 {
				want[i] = n
			}
		}
		if [3]int{got.Height, got.Width, got.Channels} != want || got.Len() != 20 {
			t.Errorf("%+v: %s", o, got)
		}
	}
	few := mustOpen(t, dir, Options{Limit: 6, Seed: 3})
	if few.Len() != 6 || few.Counts()[0] != 3 {
		t.Errorf("%s %v", few, few.Counts())
	}
	if again := mustOpen(t, dir, Options{Limit: 6, Seed: 3}); again.Digest() != few.Digest() {
		t.Error("the same seed gave other images")
	}
	if other := mustOpen(t, dir, Options{Limit: 6, Seed: 4}); other.Digest() == few.Digest() {
		t.Error("another seed gave the same images")
	}
}

func TestOpenIsInterrupted(t *testing.T) {
	dir := write(t, items(t, noise(t, 600, 2, 8, 8, 3))...)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Open(ctx, dir, Options{Progress: func(int, int) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
