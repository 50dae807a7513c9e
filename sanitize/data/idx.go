package data

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// IDX (http://yann.lecun.com/exdb/mnist): two zero bytes, the element type (8 = unsigned byte), the number of dimensions, each
// dimension as a big-endian uint32, then the elements. Images are [n, h, w] or [n, h, w, c], labels [n].
const idxBytes = 0x08

func isIDXName(name string) bool {
	base := strings.ToLower(path.Base(name))
	return strings.Contains(base, "-ubyte") || strings.HasSuffix(strings.TrimSuffix(base, ".gz"), ".idx") ||
		strings.HasSuffix(strings.TrimSuffix(base, ".gz"), ".idx3") || strings.HasSuffix(strings.TrimSuffix(base, ".gz"), ".idx1")
}

// idxLabelsName is the name of the labels that belong to an images file; "" where it is no images file.
func idxLabelsName(name string) string {
	dir, base := path.Split(name)
	if !isIDXName(base) || !strings.Contains(base, "images") {
		return ""
	}
	base = strings.NewReplacer("images", "labels", "idx3", "idx1").Replace(base)
	return dir + base
}

// idxPart tells MNIST's train-* from t10k-*.
func idxPart(f file) string {
	base := strings.ToLower(path.Base(f.name))
	switch {
	case !isIDXName(base):
		return ""
	case strings.HasPrefix(base, "t10k") || strings.Contains(base, "test"):
		return "test"
	case strings.Contains(base, "train"):
		return "train"
	}
	return ""
}

// readIDX is the reader of one pair of IDX files. Classes are named by their numbers, 0 to the largest label.
func readIDX(ctx context.Context, c container, files []file, o Options) (*Dataset, error) {
	present := map[string]bool{}
	var images string
	for _, f := range files {
		if f.dir || !isIDXName(f.name) {
			continue
		}
		present[f.name] = true
		if idxLabelsName(f.name) != "" {
			if images != "" {
				return nil, fmt.Errorf("%w: both %s and %s hold images; name one of them", ErrFormat, images, f.name)
			}
			images = f.name
		}
	}
	if images == "" {
		return nil, fmt.Errorf("%w: no IDX file has \"images\" in its name, as in train-images-idx3-ubyte", ErrFormat)
	}
	names := []string{images, idxLabelsName(images)}
	if !present[names[1]] { // one of the pair may be compressed and the other not
		if alt, zipped := strings.CutSuffix(names[1], ".gz"); zipped && present[alt] {
			names[1] = alt
		} else if !zipped && present[names[1]+".gz"] {
			names[1] += ".gz"
		} else {
			return nil, &Error{Entry: images, Err: fmt.Errorf("%w: its labels %s are missing", ErrCorrupt, names[1])}
		}
	}
	want := map[string]int{names[0]: 0, names[1]: 1}
	var dims [2][]int
	var payload [2][]byte
	err := c.load(ctx, want, o.MaxBytes, func(i int, blob func() ([]byte, error)) error {
		packed, err := blob()
		if err == nil {
			dims[i], payload[i], err = parseIDX(packed, o.MaxBytes)
		}
		if err != nil {
			return &Error{Entry: names[i], Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d, err := assembleIDX(ctx, dims, payload, o)
	if err != nil {
		return nil, &Error{Entry: images, Err: err}
	}
	return d, nil
}

// assembleIDX checks that images and labels belong together.
func assembleIDX(ctx context.Context, dims [2][]int, payload [2][]byte, o Options) (*Dataset, error) {
	im, lb := dims[0], dims[1]
	if len(im) != 3 && len(im) != 4 || len(lb) != 1 {
		return nil, fmt.Errorf("%w: images of %d and labels of %d dimensions; [n, height, width] and [n] are needed", ErrFormat, len(im), len(lb))
	}
	if im[0] != lb[0] {
		return nil, fmt.Errorf("%w: %d images but %d labels", ErrCorrupt, im[0], lb[0])
	}
	channels := 1
	if len(im) == 4 {
		channels = im[3]
	}
	labels := make([]int32, len(payload[1]))
	top := byte(0)
	for i, l := range payload[1] {
		labels[i], top = int32(l), max(top, l)
	}
	classes := make([]string, int(top)+1)
	for i := range classes {
		classes[i] = strconv.Itoa(i)
	}
	return conform(ctx, classes, im[1], im[2], channels, payload[0], labels, o)
}

// parseIDX reads an IDX file of bytes, gzipped or not, and its dimensions.
func parseIDX(packed []byte, limit int64) (dims []int, payload []byte, err error) {
	var r io.Reader = bytes.NewReader(packed)
	most := int64(len(packed)) // bytes that the file can hold
	if bytes.HasPrefix(packed, []byte{0x1f, 0x8b}) {
		if r, err = gzip.NewReader(r); err != nil {
			return nil, nil, fmt.Errorf("%w: gzip: %w", ErrCorrupt, err)
		}
		most *= gzipRatio
	}
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, nil, fmt.Errorf("%w: no IDX header: %w", ErrCorrupt, err)
	}
	if head[0] != 0 || head[1] != 0 || head[2] != idxBytes || head[3] < 1 || head[3] > 4 {
		return nil, nil, fmt.Errorf("%w: header % x is not that of an IDX file of unsigned bytes", ErrFormat, head)
	}
	size := int64(1)
	for range head[3] {
		var n uint32
		if err := binary.Read(r, binary.BigEndian, &n); err != nil {
			return nil, nil, fmt.Errorf("%w: IDX header ends early: %w", ErrCorrupt, err)
		}
		if n == 0 || int64(n) > limit/size {
			return nil, nil, fmt.Errorf("%w: IDX dimensions are zero or exceed %d bytes", ErrLimit, limit)
		}
		size *= int64(n)
		dims = append(dims, int(n))
	}
	if size > most {
		return nil, nil, fmt.Errorf("%w: %d bytes of data cannot be in a file of %d bytes; it is truncated", ErrCorrupt, size, len(packed))
	}
	payload = make([]byte, size)
	if n, err := io.ReadFull(r, payload); err != nil {
		return nil, nil, fmt.Errorf("%w: ends after %d of %d bytes of data: %w", ErrCorrupt, n, size, err)
	}
	if _, err := io.CopyN(io.Discard, r, 1); err == nil {
		return nil, nil, fmt.Errorf("%w: more bytes follow the %d of its dimensions", ErrCorrupt, size)
	} else if !errors.Is(err, io.EOF) { // the checksum of gzip
		return nil, nil, fmt.Errorf("%w: at its end: %w", ErrCorrupt, err)
	}
	return dims, payload, nil
}
