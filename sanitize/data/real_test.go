package data

import (
	"context"
	"strings"
	"testing"

	"grindstone/internal/shared"
)

func TestOpenCIFAR10AndMNIST(t *testing.T) {
	for _, tt := range []struct {
		name    string
		side, c int
		classes string
		digest  string // PNG is lossless, so MNIST's does not depend on the decoder
	}{
		{"cifar10", 32, 3, "airplane automobile bird cat deer dog frog horse ship truck", ""},
		{"mnist", 28, 1, "0 1 2 3 4 5 6 7 8 9", "sha256:d5577565d9f46f6a5bd0b06769ccd06535393fe25f83ba097374d25d5ea3e5c6"},
	} {
		var last, total int
		d := mustOpen(t, shared.Path(t, "data", tt.name, "test.tar.gz"), Options{Progress: func(n, of int) { last, total = n, of }})
		if d.Name != tt.name+"/test" || d.Len() != 10000 || d.Height != tt.side || d.Width != tt.side || d.Channels != tt.c || strings.Join(d.Classes, " ") != tt.classes {
			t.Errorf("%s", d)
		}
		if last != 10000 || total != 10000 {
			t.Errorf("progress ended at %d of %d", last, total)
		}
		if got := d.Digest(); tt.digest != "" && got != tt.digest {
			t.Errorf("%s: digest %s, want %s", d.Name, got, tt.digest)
		}
	}
}

func TestOpenSplitOfCIFAR10(t *testing.T) {
	train, held, err := OpenSplit(context.Background(), shared.Path(t, "data", "cifar10", "train.tar.gz"), shared.Path(t, "data", "cifar10", "test.tar.gz"), Options{Limit: 500, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Dataset{train, held} {
		for class, n := range d.Counts() {
			if n != 50 {
				t.Errorf("%s: %d images of %s", d.Name, n, d.Classes[class])
			}
		}
	}
	// CIFAR-10's mean colour is published: .4914, .4822, .4465.
	var sum [3]float64
	for i := range train.Len() {
		px, _ := train.At(i)
		for k, v := range px {
			sum[k%3] += float64(v) / 255 / float64(train.Len()*len(px)/3)
		}
	}
	for k, want := range []float64{.4914, .4822, .4465} {
		if diff := sum[k] - want; diff < -.03 || diff > .03 {
			t.Errorf("channel %d has a mean of %.4f, CIFAR-10 has %.4f", k, sum[k], want)
		}
	}
}
