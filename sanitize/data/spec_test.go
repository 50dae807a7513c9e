package data

import (
	"errors"
	"math"
	"testing"
)

func TestParsePreprocess(t *testing.T) {
	named, err := Named("cifar10", NCHW, 1, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	spelled, err := ParsePreprocess("mean=.4914,.4822,.4465 std=.2471,.2435,.2616", NCHW, 1, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range named.Scale {
		if named.Scale[i] != spelled.Scale[i] || named.Shift[i] != spelled.Shift[i] {
			t.Errorf("channel %d: %v %v, by name %v %v", i, spelled.Scale[i], spelled.Shift[i], named.Scale[i], named.Shift[i])
		}
	}
	blue, err := ParsePreprocess("range=0,255 mean=100 order=bgr", NHWC, 1, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 3)
	blue.Float(got, []byte{10, 20, 30})
	for i, want := range []float32{-70, -80, -90} {
		if math.Abs(float64(got[i]-want)) > 1e-4 {
			t.Errorf("channel %d is %v, want %v", i, got[i], want)
		}
	}
	if p, err := ParsePreprocess("unit", NCHW, 1, 1, 3); err != nil || p.Name != "unit" {
		t.Errorf("a name gives %v, %v", p.Name, err)
	}
}

func TestParsePreprocessRefuses(t *testing.T) {
	for _, text := range []string{"nothing", "mean=a", "mean=1,2", "std=0", "range=1", "order=grb", "gamma=2", "mean="} {
		if _, err := ParsePreprocess(text, NCHW, 1, 1, 3); !errors.Is(err, ErrOption) {
			t.Errorf("%q: error %v, want %v", text, err, ErrOption)
		}
	}
}

func FuzzParsePreprocess(f *testing.F) {
	f.Add("mean=1 std=2 range=0,1 order=bgr")
	f.Add("unit")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePreprocess(text, NCHW, 2, 2, 3)
		if err == nil && (len(p.Scale) == 0 || len(p.Shift) == 0) {
			t.Errorf("%q gives no scale or shift", text)
		}
	})
}
