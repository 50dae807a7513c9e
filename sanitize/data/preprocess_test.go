package data

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestNamed(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    int
		px   []byte    // one RGB or grey pixel
		want []float64 // what the model sees
	}{
		{"unit", 3, []byte{0, 51, 255}, []float64{0, .2, 1}},
		{"unit-bgr", 3, []byte{0, 51, 255}, []float64{1, .2, 0}},
		{"bytes", 1, []byte{77}, []float64{77}},
		{"signed", 3, []byte{0, 255, 51}, []float64{-1, 1, -.6}},
		{"signed", 4, []byte{0, 255, 51, 255}, []float64{-1, 1, -.6, 1}},
		{"imagenet", 3, []byte{255, 0, 51}, []float64{(1 - .485) / .229, -.456 / .224, (.2 - .406) / .225}},
		{"imagenet-bgr", 3, []byte{255, 0, 51}, []float64{(.2 - .406) / .225, -.456 / .224, (1 - .485) / .229}},
		{"cifar10", 3, []byte{255, 0, 51}, []float64{(1 - .4914) / .2471, -.4822 / .2435, (.2 - .4465) / .2616}},
		{"cifar10-2023", 3, []byte{255, 0, 51}, []float64{(1 - .4914) / .2023, -.4822 / .1994, (.2 - .4465) / .2010}},
		{"imagenet-225", 3, []byte{255, 0, 51}, []float64{(1 - .485) / .225, -.456 / .225, (.2 - .406) / .225}},
		{"caffe-bgr", 3, []byte{10, 20, 30}, []float64{30 - 103.939, 20 - 116.779, 10 - 123.68}},
		{"mnist", 1, []byte{255}, []float64{(1 - .1307) / .3081}},
		{"inverted", 1, []byte{51}, []float64{.8}},
		{"inverted-bytes", 1, []byte{51}, []float64{204}},
		{"inverted-signed", 1, []byte{0}, []float64{1}},
	} {
		for _, layout := range []Layout{NCHW, NHWC} {
			p, err := Named(tt.name, layout, 1, 2, tt.c)
			if err != nil {
				t.Fatal(err)
			}
			px := append(slices.Clone(tt.px), make([]byte, tt.c)...) // a black pixel follows
			got := make([]float32, 2*tt.c)
			p.Float(got, px)
			packed := make([]byte, 2*tt.c)
			p.Pack(packed, px)
			for k, want := range tt.want {
				at := 2 * k
				if layout == NHWC {
					at = k
				}
				if math.Abs(float64(got[at])-want) > 1e-5*math.Max(1, math.Abs(want)) {
					t.Errorf("%s %s channel %d: %v, want %v", tt.name, layout, k, got[at], want)
				}
				if by := float32(packed[at])*p.Scale[k] + p.Shift[k]; by != got[at] {
					t.Errorf("%s %s channel %d: packed and scaled %v, directly %v", tt.name, layout, k, by, got[at])
				}
			}
		}
	}
}

func TestNormalization(t *testing.T) {
	p, err := Normalization{Low: -2, High: 2, Mean: []float64{1}, Std: []float64{1, 2, 4}}.Preprocess(NHWC, 1, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 3)
	p.Float(got, []byte{255, 0, 255})
	if want := []float32{1, -1.5, .25}; math.Abs(float64(got[0]-want[0]))+math.Abs(float64(got[1]-want[1]))+math.Abs(float64(got[2]-want[2])) > 1e-6 {
		t.Errorf("%v, want %v", got, want)
	}
	for say, n := range map[string]Normalization{
		"2 values for 3":  {Mean: []float64{1, 2}},
		"no usable scale": {Std: []float64{0}},
		"mean NaN":        {Mean: []float64{math.NaN()}},
		"range 3 to 3":    {Low: 3, High: 3},
	} {
		if _, err := n.Preprocess(NCHW, 2, 2, 3); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", say, err)
		}
	}
	if _, err := (Normalization{BGR: true}).Preprocess(NCHW, 2, 2, 1); !errors.Is(err, ErrOption) {
		t.Errorf("BGR of grey: %v", err)
	}
	if _, err := (Normalization{}).Preprocess("CHWN", 2, 2, 3); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), "CHWN") {
		t.Errorf("layout: %v", err)
	}
	if _, err := Named("mnist", NCHW, 28, 28, 3); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), "cifar10") {
		t.Errorf("mnist in colour: %v", err)
	}
}

// Candidates differ from one another, since the best one is told from the second best by its accuracy.
func TestCandidates(t *testing.T) {
	for c, want := range map[int]int{1: 7, 3: 16, 4: 6} {
		list := Candidates(NCHW, 4, 4, c)
		if len(list) != want || list[0].Name != "unit" {
			t.Errorf("%d channels: %d candidates, first %s", c, len(list), list[0].Name)
		}
		for i, a := range list {
			for _, b := range list[:i] {
				if a.BGR == b.BGR && slices.Equal(a.Scale, b.Scale) && slices.Equal(a.Shift, b.Shift) {
					t.Errorf("%s and %s are the same", a.Name, b.Name)
				}
			}
		}
	}
}

func BenchmarkFloat(b *testing.B) {
	d := noise(b, 2, 2, 32, 32, 3)
	px, _ := d.At(0)
	p := unit(b, NCHW, d)
	dst := make([]float32, d.Size())
	for b.Loop() {
		p.Float(dst, px)
	}
}
