package onnx

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// DataFile is an external data file that RewriteFile has copied: its path beside the model, and the SHA-256 of its content before and after.
type DataFile struct {
	Path    string
	Size    int64
	Was, Is [sha256.Size]byte
}

// RewriteFile writes the model file src to dst with the named weights replaced, as Rewrite does. External data files are copied to the
// same places beside dst, with the weights they hold replaced; so a model with such files goes to a folder of its own. Files appear under
// their names when all of them are complete and ready, which is told the model's bytes and of the data files, has no objection; the model file is the last.
func RewriteFile(src, dst string, weights map[string]*Tensor, ready func(model []byte, data []DataFile) error) error {
	data, err := readRegular(src)
	if err != nil {
		return err
	}
	m, err := Parse(data)
	if err != nil {
		return &Error{File: src, Err: err}
	}
	r := &rewriter{weights: weights, patches: map[string][]patch{}}
	out, err := r.model(m)
	if err != nil {
		return &Error{File: src, Err: err}
	}
	to, err := os.OpenRoot(filepath.Dir(dst))
	if err != nil {
		return err
	}
	defer to.Close()
	w := &writing{to: to}
	defer w.discard()
	copied, err := r.copyExternal(m, src, filepath.Base(dst), w)
	if err != nil {
		return &Error{File: src, Err: err}
	}
	err = w.file(filepath.Base(dst), func(f *os.File) error {
		_, err := f.Write(out)
		return err
	})
	if err != nil {
		return err
	}
	if err := ready(out, copied); err != nil {
		return err
	}
	return w.finish()
}

// copyExternal copies the data files of a model that will be called name.
func (r *rewriter) copyExternal(m *Model, src, name string, w *writing) (copied []DataFile, err error) {
	if err := r.checkOverlap(m); err != nil {
		return nil, err
	}
	patches := map[string][]patch{} // by clean path: two spellings may name one file
	m.Graph.eachTensor(func(t *Tensor) {
		if t.External != nil {
			patches[filepath.Clean(t.External.Location)] = nil
		}
	})
	if len(patches) == 0 {
		return nil, nil
	}
	for location, list := range r.patches {
		path := filepath.Clean(location)
		patches[path] = append(patches[path], list...)
	}
	from, err := os.OpenRoot(filepath.Dir(src))
	if err != nil {
		return nil, err
	}
	defer from.Close()
	for _, path := range slices.Sorted(maps.Keys(patches)) {
		if path == name {
			return nil, fmt.Errorf("%w: file %q has the name of the new model file", ErrExternal, path)
		}
		file, err := copyPatched(from, w, path, patches[path])
		if err != nil {
			return nil, err
		}
		copied = append(copied, file)
	}
	return copied, nil
}

// checkOverlap refuses to replace external data that another tensor reads too, which would change with it.
func (r *rewriter) checkOverlap(m *Model) error {
	readers := func(location string, p patch) (n int) {
		m.Graph.eachTensor(func(t *Tensor) {
			if x := t.External; x != nil && filepath.Clean(x.Location) == filepath.Clean(location) {
				count, _ := t.count()
				if x.Offset < p.offset+int64(len(p.data)) && p.offset < x.Offset+count*t.Type.Size() {
					n++
				}
			}
		})
		return n
	}
	for location, list := range r.patches {
		for _, p := range list {
			if readers(location, p) > 1 {
				return fmt.Errorf("%w: several tensors share the bytes at %d of %q, one of them cannot be replaced alone", ErrExternal, p.offset, location)
			}
		}
	}
	return nil
}

// copyPatched copies a data file and applies patches to the copy.
func copyPatched(from *os.Root, w *writing, path string, patches []patch) (DataFile, error) {
	in, err := openRegular(from, path)
	if err != nil {
		return DataFile{}, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return DataFile{}, err
	}
	if old, err := w.to.Stat(path); err == nil && os.SameFile(info, old) {
		return DataFile{}, fmt.Errorf("%w: file %q would be overwritten; write the new model to another folder", ErrExternal, path)
	}
	if info.Size() > maxExternal {
		return DataFile{}, fmt.Errorf("%w: file %q has %d bytes", ErrLimit, path, info.Size())
	}
	if err := w.to.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return DataFile{}, err
	}
	was, is := sha256.New(), sha256.New()
	err = w.file(path, func(f *os.File) error {
		if _, err := io.Copy(f, io.TeeReader(in, was)); err != nil {
			return err
		}
		for _, p := range patches {
			if p.offset+int64(len(p.data)) > info.Size() {
				return fmt.Errorf("%w: file %q ends before the data of its tensors", ErrExternal, path)
			}
			if _, err := f.WriteAt(p.data, p.offset); err != nil {
				return err
			}
		}
		_, err := io.Copy(is, io.NewSectionReader(f, 0, info.Size()))
		return err
	})
	return DataFile{filepath.ToSlash(path), info.Size(), [sha256.Size]byte(was.Sum(nil)), [sha256.Size]byte(is.Sum(nil))}, err
}
