package data

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Options say how images are read.
type Options struct {
	Height, Width, Channels int // of the dataset; 0: as found, and then all images must agree

	Fit      Fit    // how an image of another shape becomes Height x Width
	Limit    int    // images to keep, chosen at random and stratified by class; 0: all
	Seed     uint64 // of that choice
	MaxBytes int64  // of decoded pixels; 0: 8 GiB

	// Progress is called with the number of images decoded, now and then and from one goroutine at a time.
	Progress func(done, total int)
}

// Open reads a dataset from
//
//   - a folder, a .tar, .tar.gz, .tgz or .zip of PNG, JPEG, GIF, BMP or WebP images, where the directory that holds an image is its
//     class, and classes are numbered in alphabetical order;
//   - CIFAR-10 in its binary version: one .bin file, or a folder or archive of them;
//   - IDX, the format of MNIST: the images file (the labels file is found beside it), or a folder or archive of both, gzipped or not.
//
// Where the path holds training images and others set apart (see OpenSplit), Open reads the training images alone.
func Open(ctx context.Context, path string, o Options) (*Dataset, error) {
	train, _, err := open(ctx, path, o, trainPart)
	return train, err
}

// OpenHeldOut is Open for measuring: where the path holds training images and others set apart, it reads those set apart alone.
func OpenHeldOut(ctx context.Context, path string, o Options) (*Dataset, error) {
	train, held, err := open(ctx, path, o, heldPart)
	if held != nil {
		return held, err
	}
	return train, err
}

// OpenSplit reads training images from trainPath and held-out images, never trained on, from heldPath, as OpenHeldOut does. An empty heldPath looks for
// both within trainPath: class folders under train/ and under test/, val/, valid/ or validation/ (in this order); data_batch_*.bin
// and test_batch.bin of CIFAR-10; train-* and t10k-* or test-* of IDX. ErrNoSplit says that there is no such part; use
// [Dataset.Split] then. Both parts have the same classes and image size. Options.Limit applies to each.
func OpenSplit(ctx context.Context, trainPath, heldPath string, o Options) (train, held *Dataset, err error) {
	if heldPath == "" {
		train, held, err = open(ctx, trainPath, o, trainPart|heldPart)
	} else if train, err = Open(ctx, trainPath, o); err == nil {
		o.Height, o.Width, o.Channels = train.Height, train.Width, train.Channels
		held, err = OpenHeldOut(ctx, heldPath, o)
	}
	if err != nil {
		return nil, nil, err
	}
	if !slices.Equal(train.Classes, held.Classes) {
		return nil, nil, &Error{Path: held.Name, Err: fmt.Errorf("%w: the held-out classes (%s) are not those of training (%s)",
			ErrClasses, shorten(held.Classes), shorten(train.Classes))}
	}
	return train, held, nil
}

// reader turns the chosen files of a container into a dataset.
type reader func(ctx context.Context, c container, files []file, o Options) (*Dataset, error)

// parts of a dataset that are asked for.
type parts int

const (
	trainPart parts = 1 << iota
	heldPart
)

func open(ctx context.Context, name string, o Options, want parts) (train, held *Dataset, err error) {
	c, err := openContainer(name)
	if err != nil {
		return nil, nil, locate(ctx, name, err)
	}
	defer c.Close()
	train, held, err = openIn(ctx, c, o, want)
	if err != nil {
		return nil, nil, locate(ctx, name, err)
	}
	if train != nil {
		train.Name = nameOf(name)
	}
	if held != nil {
		held.Name = nameOf(name) + " (held out)"
	}
	return train, held, nil
}

// openIn reads what is wanted; where the container sets nothing apart, all of its images as training images.
func openIn(ctx context.Context, c container, o Options, want parts) (train, held *Dataset, err error) {
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	files, err := c.files(ctx)
	if err != nil {
		return nil, nil, err
	}
	read, part, err := detect(files)
	if err != nil {
		return nil, nil, err
	}
	named := map[string][]file{}
	for _, f := range files {
		named[part(f)] = append(named[part(f)], f)
	}
	var apart string
	for _, p := range heldParts {
		if len(named["train"]) > 0 && len(named[p]) > 0 {
			apart = p
			break
		}
	}
	if apart == "" {
		if want == trainPart|heldPart {
			return nil, nil, ErrNoSplit
		}
		train, err = read(ctx, c, files, o)
		return train, nil, err
	}
	if want&trainPart != 0 {
		if train, err = read(ctx, c, slices.Concat(named["train"], named["meta"]), o); err != nil {
			return nil, nil, err
		}
		o.Height, o.Width, o.Channels = train.Height, train.Width, train.Channels
	}
	if want&heldPart != 0 {
		held, err = read(ctx, c, slices.Concat(named[apart], named["meta"]), o)
	}
	return train, held, err
}

// heldParts are the names that datasets give to their held-out part, most wanted first.
var heldParts = []string{"test", "val", "valid", "validation"}

func (o *Options) check() error {
	for _, n := range []int{o.Height, o.Width, o.Limit} {
		if n < 0 {
			return fmt.Errorf("%w: a negative size or limit", ErrOption)
		}
	}
	if err := checkSize(max(o.Height, 1), max(o.Width, 1), o.Channels+btoi(o.Channels == 0)); err != nil {
		return err
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = maxDatasetMem
	}
	return nil
}

// budget fails where n images of h x w x c do not fit in the bytes that the caller allows.
func (o *Options) budget(n, h, w, c int) error {
	if int64(n) > o.MaxBytes/int64(h*w*c) {
		return fmt.Errorf("%w: %d images of %dx%dx%d are more than %d bytes; keep fewer or smaller images", ErrLimit, n, h, w, c, o.MaxBytes)
	}
	return nil
}

// detect tells the format by the files' names; part says which part of the dataset a file belongs to ("" if to none).
func detect(files []file) (reader, func(file) string, error) {
	var images, cifar, idx int
	for _, f := range files {
		switch {
		case f.dir:
		case imageName(f.name):
			images++
		case isCIFARName(f.name):
			cifar++
		case isIDXName(f.name):
			idx++
		}
	}
	switch {
	case images > 0 && cifar+idx == 0:
		return readImages, imagePart, nil
	case cifar > 0 && images+idx == 0:
		return readCIFAR, cifarPart, nil
	case idx > 0 && images+cifar == 0:
		return readIDX, idxPart, nil
	case images+cifar+idx > 0:
		return nil, nil, fmt.Errorf("%w: %d images, %d CIFAR .bin files and %d IDX files together; keep one format", ErrFormat, images, cifar, idx)
	}
	return nil, nil, fmt.Errorf("%w: no image (.png, .jpg, .gif, .bmp, .webp), CIFAR-10 .bin or IDX file found; supported are a folder, .tar, .tar.gz or .zip of them", ErrFormat)
}

// locate adds the dataset's path to an error. An interrupted caller gets the interruption itself.
func locate(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e, ok := errors.AsType[*Error](err); ok {
		if e.Path == "" {
			e.Path = name
		}
		if e.Entry == filepath.Base(name) { // a dataset of one file
			e.Entry = ""
		}
		return err
	}
	return &Error{Path: name, Err: err}
}

// nameOf names a dataset after its file; train.tar.gz says little, so the folder's name goes before it.
func nameOf(name string) string {
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	name = filepath.ToSlash(name)
	base := strings.TrimSuffix(path.Base(name), ".gz")
	base = strings.TrimSuffix(base, path.Ext(base))
	if base == "train" || slices.Contains(heldParts, base) {
		return path.Base(path.Dir(name)) + "/" + base
	}
	return base
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
