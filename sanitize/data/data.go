// Package data holds clean image datasets: it reads them from image folders, archives, CIFAR-10 binaries and IDX files, splits
// them, and feeds shuffled and augmented batches to training.
//
// Pixels are decoded once and kept as bytes, height x width x channels (HWC), in one slice that every view shares: 50,000
// CIFAR-10 images take 154 MB. Scaling to a model's input range is the model graph's business; a [Preprocess] says how.
//
// Datasets may come from strangers, so every size is checked before memory is taken, and nothing is skipped in silence: an image
// that cannot be read is an error that names the archive and the entry.
package data

import (
	"fmt"
	"strings"
)

// Dataset is a set of labelled images of one size. Split and Subset return views that share its pixels. It is safe for
// concurrent reading.
type Dataset struct {
	Name     string
	Classes  []string // label -> class name
	Height   int      // pixels
	Width    int      // pixels
	Channels int      // 1 grey, 3 RGB, 4 RGB and straight (not premultiplied) alpha
	Labels   []int32  // row -> label

	pixels []byte  // all images, HWC, shared between views
	rows   []int32 // row of this view -> image in pixels; nil: all of them in order
}

// New makes a dataset of n images, where pixels is [n, h, w, c] and labels is [n]. Both are kept, not copied.
func New(name string, classes []string, h, w, c int, pixels []byte, labels []int32) (*Dataset, error) {
	fail := func(kind error, format string, a ...any) (*Dataset, error) {
		return nil, &Error{Path: name, Err: fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, a...))}
	}
	if err := checkSize(h, w, c); err != nil {
		return nil, &Error{Path: name, Err: err}
	}
	if len(pixels) != len(labels)*h*w*c {
		return fail(ErrCorrupt, "%d bytes of pixels for %d labels of %dx%dx%d images; %d bytes are needed",
			len(pixels), len(labels), h, w, c, len(labels)*h*w*c)
	}
	seen := make(map[string]bool, len(classes))
	for _, class := range classes {
		if class == "" || seen[class] {
			return fail(ErrClasses, "class name %q is empty or appears twice", class)
		}
		seen[class] = true
	}
	present := make([]bool, len(classes))
	distinct := 0
	for i, l := range labels {
		if l < 0 || int(l) >= len(classes) {
			return fail(ErrCorrupt, "label %d of image %d is outside the %d classes", l, i, len(classes))
		}
		if !present[l] {
			present[l] = true
			distinct++
		}
	}
	if distinct < 2 {
		return fail(ErrClasses, "images of %d class(es); a classifier's dataset needs two or more", distinct)
	}
	return &Dataset{Name: name, Classes: classes, Height: h, Width: w, Channels: c, Labels: labels, pixels: pixels}, nil
}

// checkSize refuses image sizes that no dataset can have.
func checkSize(h, w, c int) error {
	if h < 1 || w < 1 || h > maxSide || w > maxSide || h*w > maxPixels {
		return fmt.Errorf("%w: %dx%d images; a side may have 1 to %d pixels and an image at most %d", ErrLimit, h, w, maxSide, maxPixels)
	}
	if c != 1 && c != 3 && c != 4 {
		return fmt.Errorf("%w: images of %d channels; 1, 3 and 4 are supported", ErrFormat, c)
	}
	return nil
}

// Len is the number of images.
func (d *Dataset) Len() int { return len(d.Labels) }

// Size is the number of bytes of one image, Height*Width*Channels.
func (d *Dataset) Size() int { return d.Height * d.Width * d.Channels }

// At returns image i, HWC, and its label. The pixels are a view: do not write to them.
func (d *Dataset) At(i int) (pixels []byte, label int) {
	row, n := i, d.Size()
	if d.rows != nil {
		row = int(d.rows[i])
	}
	return d.pixels[row*n : (row+1)*n : (row+1)*n], int(d.Labels[i])
}

// Counts returns the number of images of each class.
func (d *Dataset) Counts() []int {
	n := make([]int, len(d.Classes))
	for _, l := range d.Labels {
		n[l]++
	}
	return n
}

// String describes the dataset in one line.
func (d *Dataset) String() string {
	return fmt.Sprintf("%s: %d images, %dx%dx%d, %d classes (%s)", d.Name, d.Len(), d.Height, d.Width, d.Channels, len(d.Classes), shorten(d.Classes))
}

// shorten lists the first few names.
func shorten(names []string) string {
	const show = 10
	if len(names) <= show {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:show], ", "), len(names)-show)
}
