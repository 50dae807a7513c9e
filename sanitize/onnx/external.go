package onnx

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// ReadFile reads a model and the external data files beside it. Their locations must lie inside of the model's folder, also after
// following symbolic links.
func ReadFile(path string) (*Model, error) {
	data, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	m, err := Parse(data)
	if err == nil {
		err = m.readExternal(filepath.Dir(path))
	}
	if err != nil {
		return nil, &Error{File: path, Err: err}
	}
	return m, nil
}

func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &Error{File: path, Err: fmt.Errorf("%w: it is not a regular file", ErrNotModel)}
	case info.Size() > maxFile:
		return nil, &Error{File: path, Err: fmt.Errorf("%w: %d bytes, a protobuf message has at most %d", ErrLimit, info.Size(), maxFile)}
	}
	return os.ReadFile(path)
}

// fillExternal sets External from a tensor's external_data entries.
func (t *Tensor) fillExternal(e elements) error {
	switch {
	case e.field != 0:
		return malformed("its data are given in the file and outside of it")
	case t.Type == String:
		return fmt.Errorf("%w: strings in external data", ErrUnsupported)
	}
	x := &External{Location: e.location["location"]}
	for key, dst := range map[string]*int64{"offset": &x.Offset, "length": &x.Length} {
		if s, given := e.location[key]; given {
			v, err := strconv.ParseInt(s, 10, 64)
			if err != nil || v < 0 {
				return fmt.Errorf("%w: %s %q is not a byte count", ErrExternal, key, s)
			}
			*dst = v
		}
	}
	if !filepath.IsLocal(x.Location) || filepath.Clean(x.Location) == "." {
		return fmt.Errorf("%w: location %q leaves the model's folder", ErrExternal, x.Location)
	}
	n, _ := t.count() // checked by fill
	if size := n * t.Type.Size(); x.Length != 0 && x.Length != size {
		return malformed("shape %v of type %v takes %d bytes, its external data have %d", t.Shape, t.Type, size, x.Length)
	}
	t.External = x
	return nil
}

// readExternal fills Raw of all tensors whose data are in files below dir.
func (m *Model) readExternal(dir string) error {
	var outside []*Tensor
	m.Graph.eachTensor(func(t *Tensor) {
		if t.External != nil {
			outside = append(outside, t)
		}
	})
	if len(outside) == 0 {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	total := int64(0)
	for _, t := range outside {
		n, _ := t.count()
		size := n * t.Type.Size()
		if size > maxExternal-total {
			return fmt.Errorf("%w: external data of more than %d bytes", ErrLimit, int64(maxExternal))
		}
		total += size
		if t.Raw, err = readRange(root, t.External, size); err != nil {
			return &Error{What: "tensor " + strconv.Quote(t.Name), Err: err}
		}
	}
	return nil
}

func readRange(root *os.Root, x *External, size int64) ([]byte, error) {
	f, err := openRegular(root, x.Location)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExternal, err)
	}
	if x.Offset > info.Size() || size > info.Size()-x.Offset {
		return nil, fmt.Errorf("%w: file %q has %d bytes, bytes %d to %d are asked for", ErrExternal, x.Location, info.Size(), x.Offset, x.Offset+size)
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, x.Offset, size), raw); err != nil {
		return nil, fmt.Errorf("%w: file %q: %w", ErrExternal, x.Location, err)
	}
	return raw, nil
}

// openRegular opens a file below root. The file is inspected before it is opened, as opening a pipe would wait for a writer.
func openRegular(root *os.Root, location string) (*os.File, error) {
	info, err := root.Stat(location)
	if err != nil {
		return nil, fmt.Errorf("%w: file %q: %w", ErrExternal, location, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %q is not a regular file", ErrExternal, location)
	}
	f, err := root.Open(location)
	if err != nil {
		return nil, fmt.Errorf("%w: file %q: %w", ErrExternal, location, err)
	}
	return f, nil
}
