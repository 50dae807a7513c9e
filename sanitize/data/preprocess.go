package data

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Layout is the order of a model's image input.
type Layout string

// The layouts in use: PyTorch exports NCHW, TensorFlow NHWC.
const (
	NCHW Layout = "NCHW"
	NHWC Layout = "NHWC"
)

// Preprocess says how an image's bytes become a model's input:
//
//	x_model[k] = pixel * Scale[k] + Shift[k],  pixel in 0..255
//
// for every channel k in the model's own order (blue first where BGR is set). Pack rearranges the bytes and leaves the arithmetic to
// the model's graph; Float does both.
type Preprocess struct {
	Name                    string
	Layout                  Layout
	Height, Width, Channels int
	BGR                     bool
	Scale, Shift            []float32 // [Channels], or one value for all
}

// Normalization describes preprocessing in the terms of training frameworks: pixels 0..255 are mapped linearly to Low..High, then
// Mean is subtracted and the result divided by Std. Mean and Std hold one value for each channel in the model's order, one for all,
// or nothing (0 and 1). Low and High both 0 mean 0..1.
type Normalization struct {
	Low, High float64
	Mean, Std []float64
	BGR       bool
}

// Preprocess is the normalization for a model input of the given layout and size.
func (n Normalization) Preprocess(layout Layout, h, w, c int) (Preprocess, error) {
	fail := func(format string, a ...any) (Preprocess, error) {
		return Preprocess{}, fmt.Errorf("preprocessing: %w: %s", ErrOption, fmt.Sprintf(format, a...))
	}
	if layout != NCHW && layout != NHWC {
		return fail("layout %q is neither NCHW nor NHWC", layout)
	}
	if err := checkSize(h, w, c); err != nil {
		return Preprocess{}, fmt.Errorf("preprocessing: %w", err)
	}
	if n.BGR && c < 3 {
		return fail("BGR order of %d channel(s)", c)
	}
	if n.Low == 0 && n.High == 0 {
		n.High = 1
	}
	p := Preprocess{Name: "custom", Layout: layout, Height: h, Width: w, Channels: c, BGR: n.BGR, Scale: make([]float32, c), Shift: make([]float32, c)}
	for k := range c {
		mean, err := channel(n.Mean, k, c, 0)
		if err != nil {
			return fail("mean: %v", err)
		}
		std, err := channel(n.Std, k, c, 1)
		if err != nil {
			return fail("standard deviation: %v", err)
		}
		scale, shift := (n.High-n.Low)/255/std, (n.Low-mean)/std
		if scale == 0 || math.IsNaN(scale+shift) || math.IsInf(scale+shift, 0) {
			return fail("channel %d: range %v to %v, mean %v and standard deviation %v give no usable scale", k, n.Low, n.High, mean, std)
		}
		p.Scale[k], p.Shift[k] = float32(scale), float32(shift)
	}
	return p, nil
}

// channel is the value for channel k of c.
func channel(values []float64, k, c int, missing float64) (float64, error) {
	switch len(values) {
	case 0:
		return missing, nil
	case 1:
		return values[0], nil
	case c:
		return values[k], nil
	}
	return 0, fmt.Errorf("%d values for %d channels", len(values), c)
}

// named are the usual normalizations, most usual first. Means and deviations are in RGB order; those of one colour suit one channel.
var named = []struct {
	name     string
	channels []int
	Normalization
}{
	{"unit", []int{1, 3, 4}, Normalization{}},
	{"bytes", []int{1, 3, 4}, Normalization{High: 255}},
	{"signed", []int{1, 3, 4}, Normalization{Low: -1, High: 1}},
	{"imagenet", []int{3}, Normalization{Mean: []float64{.485, .456, .406}, Std: []float64{.229, .224, .225}}},
	{"cifar10", []int{3}, Normalization{Mean: []float64{.4914, .4822, .4465}, Std: []float64{.2471, .2435, .2616}}},
	{"cifar10-2023", []int{3}, Normalization{Mean: []float64{.4914, .4822, .4465}, Std: []float64{.2023, .1994, .2010}}}, // a widely copied mistake
	{"imagenet-225", []int{3}, Normalization{Mean: []float64{.485, .456, .406}, Std: []float64{.225}}},
	{"caffe", []int{3}, Normalization{High: 255, Mean: []float64{123.68, 116.779, 103.939}}},
	{"mnist", []int{1}, Normalization{Mean: []float64{.1307}, Std: []float64{.3081}}},
	{"inverted", []int{1}, Normalization{Low: 1, High: 0}},
	{"inverted-bytes", []int{1}, Normalization{Low: 255, High: 0}},
	{"inverted-signed", []int{1}, Normalization{Low: 1, High: -1}},
}

// Names lists what Named accepts for c channels.
func Names(c int) []string {
	var names []string
	for _, n := range named {
		if slices.Contains(n.channels, c) {
			names = append(names, n.name)
			if c >= 3 {
				names = append(names, n.name+"-bgr")
			}
		}
	}
	return names
}

// Named is one of the usual preprocessings: unit (0..1), bytes (0..255), signed (-1..1), imagenet, cifar10, cifar10-2023 (deviation
// .2023, .1994, .2010), imagenet-225 (deviation .225), caffe (0..255 less ImageNet's mean), mnist, and for grey images inverted,
// inverted-bytes and inverted-signed. With -bgr appended the model wants blue first; each mean goes with its colour.
func Named(name string, layout Layout, h, w, c int) (Preprocess, error) {
	base, bgr := strings.CutSuffix(name, "-bgr")
	for _, n := range named {
		if n.name != base || !slices.Contains(n.channels, c) || bgr && c < 3 {
			continue
		}
		norm := n.Normalization
		if norm.BGR = bgr; bgr {
			norm.Mean, norm.Std = swapped(norm.Mean), swapped(norm.Std)
		}
		p, err := norm.Preprocess(layout, h, w, c)
		p.Name = name
		return p, err
	}
	return Preprocess{}, fmt.Errorf("preprocessing: %w: no preprocessing %q for %d channel(s); known are %s", ErrOption, name, c, strings.Join(Names(c), ", "))
}

// swapped exchanges red and blue.
func swapped(v []float64) []float64 {
	v = slices.Clone(v)
	if len(v) >= 3 {
		v[0], v[2] = v[2], v[0]
	}
	return v
}

// Candidates are the preprocessings to try on a model that does not say which one it wants, most usual first. It panics where no
// image has such a size.
func Candidates(layout Layout, h, w, c int) []Preprocess {
	var list []Preprocess
	for _, bgr := range []bool{false, true} {
		for _, name := range Names(c) {
			if strings.HasSuffix(name, "-bgr") != bgr {
				continue
			}
			p, err := Named(name, layout, h, w, c)
			if err != nil {
				panic(err)
			}
			list = append(list, p)
		}
	}
	return list
}

// check fails where d's images are not what the model wants.
func (p Preprocess) check(d *Dataset) error {
	if p.Height != d.Height || p.Width != d.Width || p.Channels != d.Channels {
		return fmt.Errorf("%w: images are %dx%dx%d, the model wants %dx%dx%d; open the dataset with that size",
			ErrOption, d.Height, d.Width, d.Channels, p.Height, p.Width, p.Channels)
	}
	return nil
}
