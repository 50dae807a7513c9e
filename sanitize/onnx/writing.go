package onnx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// writing are files that are written under other names first, NAME.partial, and get their own names all together. They stay open as long, which tells them
// from files that others have put in their places.
type writing struct {
	to    *os.Root
	files []partial
}

type partial struct {
	path string
	*os.File
}

func (p partial) part() string { return p.path + ".partial" }

// file writes a file. What a run that was cut off has left under its other name gives way: it is removed and not written to, as it may be a link.
func (w *writing) file(path string, write func(*os.File) error) error {
	p := partial{path: path}
	err := w.to.Remove(p.part())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p.File, err = w.to.OpenFile(p.part(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		return err
	}
	w.files = append(w.files, p)
	if err := write(p.File); err != nil {
		return err
	}
	return p.Sync()
}

// finish gives the files their names.
func (w *writing) finish() error {
	for _, p := range w.files {
		if !w.holds(p) {
			return fmt.Errorf("%s: another run writes the same file", p.path)
		}
	}
	for i, p := range w.files {
		if err := w.to.Rename(p.part(), p.path); err != nil {
			for _, done := range w.files[:i] {
				_ = w.to.Remove(done.path)
			}
			return err
		}
	}
	return nil
}

// discard closes the files and removes those that have not got their names.
func (w *writing) discard() {
	for _, p := range w.files {
		if w.holds(p) {
			_ = w.to.Remove(p.part())
		}
		_ = p.Close()
	}
}

// holds reports whether a file still has its first name, and no other run's has.
func (w *writing) holds(p partial) bool {
	there, err := w.to.Lstat(p.part())
	own, e := p.Stat()
	return err == nil && e == nil && os.SameFile(there, own)
}
