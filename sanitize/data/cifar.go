package data

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// CIFAR-10's binary version (https://www.cs.toronto.edu/~kriz/cifar.html): records of one label byte and 3072 pixel bytes, the red,
// the green and the blue plane of 32x32 each. batches.meta.txt names the classes, one a line.
const (
	cifarSide   = 32
	cifarPlane  = cifarSide * cifarSide
	cifarRecord = 1 + 3*cifarPlane
	cifarMeta   = "batches.meta.txt"
)

func isCIFARName(name string) bool { return strings.EqualFold(path.Ext(name), ".bin") }

// cifarPart tells data_batch_1.bin from test_batch.bin.
func cifarPart(f file) string {
	base := strings.ToLower(path.Base(f.name))
	switch {
	case base == cifarMeta:
		return "meta"
	case !isCIFARName(base):
		return ""
	case strings.HasPrefix(base, "data_batch"):
		return "train"
	case strings.HasPrefix(base, "test_batch"):
		return "test"
	}
	return ""
}

// readCIFAR is the reader of CIFAR-10's binary files. Rows are in the files' order, files by name.
func readCIFAR(ctx context.Context, c container, files []file, o Options) (*Dataset, error) {
	var classes []string
	var batches []file
	total := 0
	want := map[string]int{}
	for _, f := range files {
		switch {
		case f.dir:
		case path.Base(f.name) == cifarMeta:
			want[f.name] = -1
		case isCIFARName(f.name):
			if f.size == 0 || f.size%cifarRecord != 0 {
				return nil, &Error{Entry: f.name, Err: fmt.Errorf("%w: %d bytes are not a whole number of CIFAR-10 records of %d bytes; the file is truncated or of another format", ErrCorrupt, f.size, cifarRecord)}
			}
			batches = append(batches, f)
			total += int(f.size / cifarRecord)
		}
	}
	if err := o.budget(total, cifarSide, cifarSide, 3); err != nil {
		return nil, err
	}
	slices.SortFunc(batches, func(a, b file) int { return strings.Compare(a.name, b.name) })
	first := make([]int, len(batches)) // each file's first row
	for i, f := range batches {
		want[f.name] = i
		if i > 0 {
			first[i] = first[i-1] + int(batches[i-1].size/cifarRecord)
		}
	}
	pixels, labels := make([]byte, total*3*cifarPlane), make([]int32, total)
	err := c.load(ctx, want, o.MaxBytes, func(i int, blob func() ([]byte, error)) error {
		data, err := blob()
		if err != nil {
			return &Error{Entry: nameIn(want, i), Err: err}
		}
		if i < 0 {
			classes = strings.Fields(string(data))
			return nil
		}
		if int64(len(data)) != batches[i].size {
			return &Error{Entry: batches[i].name, Err: fmt.Errorf("%w: the file changed while it was read", ErrCorrupt)}
		}
		for n := 0; n < len(data)/cifarRecord; n++ {
			record := data[n*cifarRecord:][:cifarRecord]
			row := first[i] + n
			labels[row] = int32(record[0])
			if record[0] > 9 {
				return &Error{Entry: batches[i].name, Err: fmt.Errorf("%w: label %d of record %d is not 0 to 9; this is no CIFAR-10 file", ErrCorrupt, record[0], n)}
			}
			interleave(pixels[row*3*cifarPlane:][:3*cifarPlane], record[1:])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if classes == nil {
		classes = []string{"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
	} else if len(classes) != 10 {
		return nil, &Error{Entry: cifarMeta, Err: fmt.Errorf("%w: %d class names; CIFAR-10 has 10", ErrClasses, len(classes))}
	}
	return conform(ctx, classes, cifarSide, cifarSide, 3, pixels, labels, o)
}

// interleave turns three planes into HWC.
func interleave(dst, planes []byte) {
	n := len(planes) / 3
	for i := range n {
		dst[3*i], dst[3*i+1], dst[3*i+2] = planes[i], planes[n+i], planes[2*n+i]
	}
}

// nameIn is the entry that has number i.
func nameIn(want map[string]int, i int) string {
	for name, n := range want {
		if n == i {
			return name
		}
	}
	return ""
}

// conform applies the options to images that a format delivers whole: their number first, then their size.
func conform(ctx context.Context, classes []string, h, w, c int, pixels []byte, labels []int32, o Options) (*Dataset, error) {
	d, err := New("", classes, h, w, c, pixels, labels)
	if err != nil {
		return nil, errors.Unwrap(err) // the caller names the file
	}
	if o.Limit > 0 && o.Limit < d.Len() {
		rows, err := stratified(d.Labels, len(classes), o.Limit, o.Seed)
		if err != nil {
			return nil, err
		}
		d = d.view(rows)
	}
	to := *d
	if o.Height > 0 {
		to.Height = o.Height
	}
	if o.Width > 0 {
		to.Width = o.Width
	}
	if o.Channels > 0 {
		to.Channels = o.Channels
	}
	if d.rows == nil && to.Height == h && to.Width == w && to.Channels == c {
		return d, nil
	}
	if err := o.budget(d.Len(), to.Height, to.Width, to.Channels); err != nil {
		return nil, err
	}
	n := to.Size()
	to.pixels, to.rows = make([]byte, d.Len()*n), nil
	for i := range d.Len() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		px, _ := d.At(i)
		raster{h, w, c, px}.fit(to.pixels[i*n:(i+1)*n], to.Height, to.Width, to.Channels, o.Fit)
		if o.Progress != nil && (i%1024 == 1023 || i == d.Len()-1) {
			o.Progress(i+1, d.Len())
		}
	}
	return &to, nil
}
