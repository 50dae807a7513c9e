// Package regular opens files that a process wrote which is not trusted.
package regular

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Errors of Open, for messages.
var (
	ErrKind = errors.New("not a regular file")
	ErrSize = errors.New("too large")
)

// Open opens a file for reading that is no link, pipe or device, and has no more than so many bytes: what stands in its place could lead elsewhere, or never end.
func Open(path string, most int64) (*os.File, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, ErrKind)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that has taken the file's place is not waited for
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !os.SameFile(before, info):
		err = fmt.Errorf("%s: %w", path, ErrKind)
	case info.Size() > most:
		err = fmt.Errorf("%s: %w: %d bytes, at most %d", path, ErrSize, info.Size(), most)
	default:
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}

// Read reads such a file.
func Read(path string, most int64) ([]byte, error) {
	f, err := Open(path, most)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most)) // it may grow meanwhile
}
