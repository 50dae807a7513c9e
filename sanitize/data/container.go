package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// file is an entry of a container. Names are slash-separated and relative to the container.
type file struct {
	name string
	size int64 // bytes, unpacked; as the container declares it
	dir  bool
}

// container is a folder or an archive.
type container interface {
	// files lists every entry once, in the container's own order. It checks the whole of the container.
	files(ctx context.Context) ([]file, error)
	// load calls each for every entry named in want, with want's number. The contents come from blob, which may be called once,
	// from another goroutine, and fails where they exceed limit bytes. Entries come in the container's own order.
	load(ctx context.Context, want map[string]int, limit int64, each func(i int, blob func() ([]byte, error)) error) error
	Close() error
}

// openContainer opens a folder, an archive, or a single file as a container of one.
func openContainer(name string) (container, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	lower := strings.ToLower(name)
	switch {
	case info.IsDir():
		return folder{root: name}, nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: neither a folder nor a regular file", ErrFormat)
	case strings.HasSuffix(lower, ".zip"):
		return openZip(name)
	case strings.HasSuffix(lower, ".tar"), strings.HasSuffix(lower, ".tar.gz"), strings.HasSuffix(lower, ".tgz"):
		return openTar(name, info.Size()), nil
	}
	return folder{root: filepath.Dir(name), only: filepath.Base(name)}, nil
}

// folder is a container on the file system; with only set, it is that file and the label file of an IDX pair beside it.
type folder struct {
	root string
	only string
}

func (f folder) Close() error { return nil }

func (f folder) files(ctx context.Context) ([]file, error) {
	if f.only != "" {
		return f.single()
	}
	root, err := filepath.EvalSymlinks(f.root)
	if err != nil {
		return nil, err
	}
	var list []file
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == root {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if hidden(path.Base(rel)) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if len(list) == maxFiles {
			return fmt.Errorf("%w: more than %d files", ErrLimit, maxFiles)
		}
		if entry.IsDir() {
			list = append(list, file{name: rel, dir: true})
			return nil
		}
		info, err := os.Stat(name) // follows a link
		if err != nil {
			return err
		}
		if info.IsDir() {
			return &Error{Path: f.root, Entry: rel, Err: fmt.Errorf("%w: a link to a folder is not followed; put the folder itself here", ErrFormat)}
		}
		if !info.Mode().IsRegular() {
			return &Error{Path: f.root, Entry: rel, Err: fmt.Errorf("%w: not a regular file", ErrFormat)}
		}
		list = append(list, file{name: rel, size: info.Size()})
		return nil
	})
	return list, err
}

func (f folder) single() ([]file, error) {
	var list []file
	names := []string{f.only}
	if labels := idxLabelsName(f.only); labels != "" {
		names = append(names, labels)
	} else if isCIFARName(f.only) {
		names = append(names, cifarMeta)
	}
	for i, name := range names {
		info, err := os.Stat(filepath.Join(f.root, name))
		if i > 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, file{name: name, size: info.Size()})
	}
	return list, nil
}

func (f folder) load(ctx context.Context, want map[string]int, limit int64, each func(int, func() ([]byte, error)) error) error {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		i := want[name]
		if err := ctx.Err(); err != nil {
			return err
		}
		blob := func() ([]byte, error) {
			r, err := os.Open(filepath.Join(f.root, filepath.FromSlash(name)))
			if err != nil {
				return nil, err
			}
			defer r.Close()
			info, err := r.Stat()
			if err != nil {
				return nil, err
			}
			return readAll(r, info.Size(), limit)
		}
		if err := each(i, blob); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads what a container declares to be size bytes, and fails where they are more or fewer, or more than limit.
func readAll(r io.Reader, size, limit int64) ([]byte, error) {
	if size < 0 || size > limit {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are read", ErrLimit, size, limit)
	}
	buf := make([]byte, size)
	if n, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("%w: ends after %d of %d bytes: %w", ErrCorrupt, n, size, err)
	}
	return buf, nil
}

// hidden tells files that operating systems leave behind from files that belong to a dataset.
func hidden(base string) bool {
	return strings.HasPrefix(base, ".") || base == "__MACOSX" || strings.EqualFold(base, "thumbs.db") || strings.EqualFold(base, "desktop.ini")
}

// clean turns an archive's entry name into a relative slash path; "" where nothing is left or any part of it is hidden.
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for part := range strings.SplitSeq(name, "/") {
		if hidden(part) {
			return ""
		}
	}
	return name
}
