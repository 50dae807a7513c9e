package data

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
)

// imageName reports whether a file is meant to be an image, by its extension. Formats that cannot be decoded count too, so that
// they are refused rather than passed over.
func imageName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".webp",
		".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif", ".jxl":
		return true
	}
	return false
}

// imagePart is the directory above the class: train in train/cat/1.png.
func imagePart(f file) string {
	class := path.Dir(f.name)
	if f.dir {
		class = f.name
	}
	if part := strings.ToLower(path.Base(path.Dir(class))); part == "train" || slices.Contains(heldParts, part) {
		return part
	}
	return ""
}

// readImages is the reader of class folders. Rows are ordered by class, then by name.
func readImages(ctx context.Context, c container, files []file, o Options) (*Dataset, error) {
	list, classes, labels, err := classify(files)
	if err != nil {
		return nil, err
	}
	if o.Limit > 0 && o.Limit < len(list) {
		rows, err := stratified(labels, len(classes), o.Limit, o.Seed)
		if err != nil {
			return nil, err
		}
		list, labels = pick(list, rows), pick(labels, rows)
	}
	a := &assembly{options: o, files: list}
	if err := a.measure(ctx, c); err != nil {
		return nil, err
	}
	if err := o.budget(len(list), a.height, a.width, a.channels); err != nil {
		return nil, err
	}
	a.pixels = make([]byte, len(list)*a.height*a.width*a.channels)
	if err := a.decode(ctx, c); err != nil {
		return nil, err
	}
	return New("", classes, a.height, a.width, a.channels, a.pixels, labels)
}

// classify keeps the images, in the order of their classes and names.
func classify(files []file) (list []file, classes []string, labels []int32, err error) {
	classDirs, above := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		if f.dir || !imageName(f.name) {
			continue
		}
		dir := path.Dir(f.name)
		if dir == "." {
			return nil, nil, nil, &Error{Entry: f.name, Err: fmt.Errorf("%w: lies in no class folder; put it in a folder named as its class", ErrClasses)}
		}
		list = append(list, f)
		classDirs[dir], above[path.Dir(dir)] = true, true
	}
	for _, f := range files { // a folder beside class folders is a class: without images, every later label would be off by one
		if f.dir && above[path.Dir(f.name)] && !classDirs[f.name] && !above[f.name] {
			return nil, nil, nil, &Error{Entry: f.name, Err: fmt.Errorf("%w: this class folder holds no image; fill or remove it", ErrClasses)}
		}
	}
	slices.SortFunc(list, func(a, b file) int {
		return cmp.Or(cmp.Compare(className(a), className(b)), cmp.Compare(a.name, b.name))
	})
	labels = make([]int32, len(list))
	for i, f := range list {
		if i == 0 || className(f) != className(list[i-1]) {
			classes = append(classes, className(f))
		}
		labels[i] = int32(len(classes) - 1)
	}
	if len(classes) < 2 {
		return nil, nil, nil, fmt.Errorf("%w: only class %q found; images lie in one folder a class, and there are two classes or more", ErrClasses, strings.Join(classes, ""))
	}
	return list, classes, labels, nil
}

func className(f file) string { return path.Base(path.Dir(f.name)) }

// assembly decodes images into their place in one slice.
type assembly struct {
	options                 Options
	files                   []file
	height, width, channels int
	pixels                  []byte

	mu   sync.Mutex
	done int
}

// measure settles the image size: what the options say, and the first image where they say nothing.
func (a *assembly) measure(ctx context.Context, c container) error {
	o := a.options
	a.height, a.width, a.channels = o.Height, o.Width, o.Channels
	if o.Height > 0 && o.Width > 0 && o.Channels > 0 {
		return nil
	}
	name := a.files[0].name
	return c.load(ctx, map[string]int{name: 0}, maxImageFile, func(_ int, blob func() ([]byte, error)) error {
		data, err := blob()
		if err != nil {
			return &Error{Entry: name, Err: err}
		}
		r, err := decodeImage(data, o.Channels == 4)
		if err != nil {
			return &Error{Entry: name, Err: err}
		}
		a.height, a.width, a.channels = cmp.Or(o.Height, r.h), cmp.Or(o.Width, r.w), cmp.Or(o.Channels, r.c)
		return nil
	})
}

type job struct {
	row  int
	blob func() ([]byte, error)
}

// decode fills pixels, on all cores.
func (a *assembly) decode(ctx context.Context, c container) error {
	want := make(map[string]int, len(a.files))
	for i, f := range a.files {
		want[f.name] = i
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan job, 64)
	var wg sync.WaitGroup
	for range workers() {
		wg.Go(func() {
			for j := range jobs {
				if inner.Err() != nil {
					continue
				}
				if err := a.one(j); err != nil {
					cancel(&Error{Entry: a.files[j.row].name, Err: err})
				}
			}
		})
	}
	err := c.load(inner, want, maxImageFile, func(row int, blob func() ([]byte, error)) error {
		select {
		case jobs <- job{row, blob}:
			return nil
		case <-inner.Done():
			return context.Cause(inner)
		}
	})
	close(jobs)
	wg.Wait()
	if cause := context.Cause(inner); cause != nil {
		return cause
	}
	return err
}

// one decodes one image and reports progress.
func (a *assembly) one(j job) error {
	data, err := j.blob()
	if err != nil {
		return err
	}
	r, err := decodeImage(data, a.channels == 4)
	if err != nil {
		return err
	}
	o := a.options
	if o.Height == 0 && r.h != a.height || o.Width == 0 && r.w != a.width {
		return fmt.Errorf("%w: %d pixels high and %d wide where %s has %d and %d; ask for one height and width", ErrMixed, r.h, r.w, a.files[0].name, a.height, a.width)
	}
	if o.Channels == 0 && r.c > a.channels {
		return fmt.Errorf("%w: in colour where %s is grey; ask for 3 channels, or for 1", ErrMixed, a.files[0].name)
	}
	n := a.height * a.width * a.channels
	r.fit(a.pixels[j.row*n:(j.row+1)*n], a.height, a.width, a.channels, o.Fit)
	if o.Progress == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done++; a.done%256 == 0 || a.done == len(a.files) {
		o.Progress(a.done, len(a.files))
	}
	return nil
}

// pick returns s at the given rows.
func pick[T any](s []T, rows []int32) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = s[r]
	}
	return out
}
