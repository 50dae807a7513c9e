package data

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// labelled is a dataset whose every image is its row number, so that a view's rows can be told.
func labelled(t rapid.TB, counts []int) *Dataset {
	var labels []int32
	names := make([]string, len(counts))
	for class, n := range counts {
		names[class] = string(rune('a' + class))
		for range n {
			labels = append(labels, int32(class))
		}
	}
	pixels := make([]byte, 4*len(labels))
	for i := range labels {
		pixels[4*i], pixels[4*i+1] = byte(i), byte(i>>8)
	}
	d, err := New("rows", names, 1, 1, 4, pixels, labels)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return d
}

// rows are the rows of the whole dataset that a view shows.
func rowsOf(t rapid.TB, v, whole *Dataset) []int {
	var rows []int
	for i := range v.Len() {
		px, label := v.At(i)
		row := int(px[0]) | int(px[1])<<8
		if _, want := whole.At(row); want != label {
			t.Fatalf("row %d is labelled %d in the view and %d in the whole", row, label, want)
		}
		rows = append(rows, row)
	}
	return rows
}

func TestSplitIsStratifiedDisjointAndCovering(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(2, 60), 2, 8).Draw(t, "counts")
		share := rapid.Float64Range(.01, .99).Draw(t, "share")
		seed := rapid.Uint64().Draw(t, "seed")
		d := labelled(t, counts)
		train, held, err := d.Split(share, seed)
		if err != nil {
			t.Fatal(err)
		}
		a, b := rowsOf(t, train, d), rowsOf(t, held, d)
		if !slices.IsSorted(a) || !slices.IsSorted(b) {
			t.Error("rows are not in their order")
		}
		all := slices.Sorted(slices.Values(append(slices.Clone(a), b...)))
		for i := range d.Len() {
			if len(all) != d.Len() || all[i] != i {
				t.Fatalf("the parts do not make up the whole: %v", all)
			}
		}
		for class, n := range held.Counts() {
			want := share * float64(counts[class])
			if n < 1 || n >= counts[class] {
				t.Errorf("class %d of %d images: %d held out", class, counts[class], n)
			}
			// The guarantee of one image each may take from the largest classes, so a class strays by at most the number of classes.
			if math.Abs(float64(n)-want) > float64(len(counts)) {
				t.Errorf("class %d of %d images: %d held out, the share is %.1f", class, counts[class], n, want)
			}
		}
		if again, _, _ := d.Split(share, seed); !slices.Equal(rowsOf(t, again, d), a) {
			t.Error("the same seed gives another split")
		}
		// A view of a view, and its content.
		sub := train.Subset(train.Len()/2, seed)
		for _, row := range rowsOf(t, sub, d) {
			if !slices.Contains(a, row) {
				t.Errorf("row %d of a subset is not in the set", row)
			}
		}
	})
}

func TestApportion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(0, 50), 1, 12).Draw(t, "counts")
		total, present := 0, 0
		for _, c := range counts {
			total += c
			present += btoi(c > 0)
		}
		n := rapid.IntRange(0, total).Draw(t, "n")
		sum := 0
		for class, q := range apportion(counts, n) {
			sum += q
			if q < 0 || q > counts[class] || q == 0 && counts[class] > 0 && n >= present {
				t.Fatalf("class %d of %d images gets %d of %d", class, counts[class], q, n)
			}
		}
		if sum != n {
			t.Fatalf("%d of %d given", sum, n)
		}
	})
}

func TestSplitSeedsDiffer(t *testing.T) {
	d := labelled(t, []int{50, 50})
	a, _, _ := d.Split(.5, 1)
	b, _, _ := d.Split(.5, 2)
	if slices.Equal(rowsOf(t, a, d), rowsOf(t, b, d)) {
		t.Error("two seeds give one split")
	}
}

func TestSplitRefuses(t *testing.T) {
	d := labelled(t, []int{5, 1})
	if _, _, err := d.Split(.5, 1); !errors.Is(err, ErrClasses) {
		t.Errorf("a class of one image: %v", err)
	}
	for _, share := range []float64{0, 1, -1, math.NaN()} {
		if _, _, err := labelled(t, []int{5, 5}).Split(share, 1); !errors.Is(err, ErrOption) {
			t.Errorf("a share of %v: %v", share, err)
		}
	}
}

// TestSplitKeepsCopiesTogether: what is held out is not in training under another name or label; every image is in one part; of each class there is something
// in both.
func TestSplitKeepsCopiesTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const classes = 3
		var pixels []byte
		var labels []int32
		for i := range 60 {
			for range rapid.IntRange(1, 6).Draw(t, "copies") {
				label := int32(i % classes)
				if rapid.IntRange(0, 9).Draw(t, "elsewhere") == 0 && i >= 2*classes {
					label = int32((i + 1) % classes)
				}
				pixels, labels = append(pixels, byte(i)), append(labels, label)
			}
		}
		d, err := New("copies", []string{"a", "b", "c"}, 1, 1, 1, pixels, labels)
		if err != nil {
			t.Fatal(err)
		}
		train, held, err := d.Split(.3, rapid.Uint64().Draw(t, "seed"))
		if err != nil {
			t.Fatal(err)
		}
		trained, distinct := map[byte]bool{}, map[byte]bool{}
		for i := range train.Len() {
			px, _ := train.At(i)
			trained[px[0]] = true
		}
		for i := range held.Len() {
			px, _ := held.At(i)
			distinct[px[0]] = true
			if trained[px[0]] {
				t.Fatalf("image %d is in both parts", px[0])
			}
		}
		if train.Len()+held.Len() != d.Len() || len(distinct) != 18 {
			t.Errorf("%d and %d of %d images, %d distinct ones held out", train.Len(), held.Len(), d.Len(), len(distinct))
		}
		if train.Without(held) != train || d.Without(held).Len() != train.Len() || held.Without(d).Len() != 0 {
			t.Errorf("%d, %d and %d images without those of another part", train.Without(held).Len(), d.Without(held).Len(), held.Without(d).Len())
		}
	})
}

// TestSplitOfOneImageAndItsCopy: copies do not make a second image.
func TestSplitOfOneImageAndItsCopy(t *testing.T) {
	d, err := New("copies", []string{"a", "b"}, 1, 1, 1, []byte{1, 2, 3, 3, 3}, []int32{0, 0, 1, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Split(.5, 1); !errors.Is(err, ErrClasses) {
		t.Errorf("a class of three copies of an image: %v", err)
	}
}

func TestSubset(t *testing.T) {
	d := labelled(t, []int{100, 50, 10})
	for n, want := range map[int][]int{16: {10, 5, 1}, 160: {100, 50, 10}, 1000: {100, 50, 10}, 0: {0, 0, 0}, -3: {0, 0, 0}, 3: {1, 1, 1}} {
		if got := d.Subset(n, 9).Counts(); !slices.Equal(got, want) {
			t.Errorf("subset of %d: %v, want %v", n, got, want)
		}
	}
}

// TestShuffled: the same images with their labels, no longer class by class.
func TestShuffled(t *testing.T) {
	whole := labelled(t, []int{100, 50, 10})
	d := whole.Subset(80, 9)
	s := d.Shuffled(9)
	was, is := rowsOf(t, d, whole), rowsOf(t, s, whole)
	if slices.IsSorted(is) || slices.IsSorted(s.Labels) {
		t.Errorf("the order is %v", is)
	}
	slices.Sort(is)
	if !slices.Equal(is, was) {
		t.Errorf("%v became %v", was, is)
	}
}

func TestNewRefuses(t *testing.T) {
	two := []string{"a", "b"}
	for name, tt := range map[string]struct {
		classes []string
		h, w, c int
		pixels  []byte
		labels  []int32
		kind    error
	}{
		"pixels short":   {two, 1, 1, 1, []byte{1}, []int32{0, 1}, ErrCorrupt},
		"label too high": {two, 1, 1, 1, []byte{1, 2}, []int32{0, 2}, ErrCorrupt},
		"label negative": {two, 1, 1, 1, []byte{1, 2}, []int32{0, -1}, ErrCorrupt},
		"one class":      {two, 1, 1, 1, []byte{1, 2}, []int32{0, 0}, ErrClasses},
		"no images":      {two, 1, 1, 1, nil, nil, ErrClasses},
		"same name":      {[]string{"a", "a"}, 1, 1, 1, []byte{1, 2}, []int32{0, 1}, ErrClasses},
		"no name":        {[]string{"a", ""}, 1, 1, 1, []byte{1, 2}, []int32{0, 1}, ErrClasses},
		"no size":        {two, 0, 1, 1, nil, []int32{0, 1}, ErrLimit},
		"huge":           {two, 1 << 40, 1 << 40, 1, nil, []int32{0, 1}, ErrLimit},
		"two channels":   {two, 1, 1, 2, []byte{1, 2, 3, 4}, []int32{0, 1}, ErrFormat},
	} {
		if d, err := New("x", tt.classes, tt.h, tt.w, tt.c, tt.pixels, tt.labels); !errors.Is(err, tt.kind) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}
