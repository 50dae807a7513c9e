package data

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// tarball is a tar archive, gzip-compressed or not. It is read from its start on every pass, so it may be larger than memory.
type tarball struct {
	open func() (io.ReadCloser, error)
	size int64 // packed bytes
	gzip bool
}

func openTar(name string, size int64) tarball {
	return tarball{
		open: func() (io.ReadCloser, error) { return os.Open(name) },
		size: size,
		gzip: !strings.HasSuffix(strings.ToLower(name), ".tar"),
	}
}

func (t tarball) Close() error { return nil }

func (t tarball) files(ctx context.Context) ([]file, error) {
	var list []file
	seen := map[string]bool{}
	err := t.walk(ctx, func(f file, _ io.Reader) error {
		if !f.dir && seen[f.name] {
			return &Error{Entry: f.name, Err: fmt.Errorf("%w: appears twice in the archive", ErrCorrupt)}
		}
		seen[f.name] = true
		list = append(list, f)
		return nil
	})
	return list, err
}

func (t tarball) load(ctx context.Context, want map[string]int, limit int64, each func(int, func() ([]byte, error)) error) error {
	left := len(want)
	err := t.walk(ctx, func(f file, r io.Reader) error {
		i, ok := want[f.name]
		if !ok || f.dir {
			return nil
		}
		data, err := readAll(r, f.size, limit)
		if err != nil {
			return &Error{Entry: f.name, Err: err}
		}
		if err := each(i, func() ([]byte, error) { return data, nil }); err != nil {
			return err
		}
		if left--; left == 0 {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	if err == nil && left > 0 {
		err = fmt.Errorf("%w: the archive changed while it was read", ErrCorrupt)
	}
	return err
}

// walk visits folders and regular files.
func (t tarball) walk(ctx context.Context, visit func(file, io.Reader) error) error {
	raw, err := t.open()
	if err != nil {
		return err
	}
	defer raw.Close()
	var r io.Reader = bufio.NewReaderSize(raw, 1<<18)
	if t.gzip {
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("%w: not a gzip file: %w", ErrCorrupt, err)
		}
		r = z
	}
	meter := &meter{ctx: ctx, r: r, packed: t.size}
	archive := tar.NewReader(meter)
	last := "its start"
	for n := 0; ; n++ {
		h, err := archive.Next()
		if err == io.EOF {
			return meter.end()
		}
		if err != nil {
			return t.broken(ctx, err, last)
		}
		if n == maxFiles || len(h.Name) > maxName {
			return fmt.Errorf("%w: more than %d entries, or a name longer than %d bytes", ErrLimit, maxFiles, maxName)
		}
		f := file{name: clean(h.Name), size: h.Size, dir: h.Typeflag == tar.TypeDir}
		if f.name == "" {
			continue
		}
		last = f.name
		if h.Typeflag != tar.TypeReg && !f.dir {
			if imageName(f.name) {
				return &Error{Entry: f.name, Err: fmt.Errorf("%w: a link or device in an archive is not followed; store the image itself", ErrFormat)}
			}
			continue
		}
		if err := visit(f, archive); err != nil {
			return err
		}
	}
}

func (t tarball) broken(ctx context.Context, err error, last string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, ErrLimit) {
		return err
	}
	return fmt.Errorf("%w: the archive is truncated or not a tar, after %s: %w", ErrCorrupt, last, err)
}

// meter stops a compressed archive that unpacks to far more than images do, and notices whether it ended as a tar must.
type meter struct {
	ctx    context.Context
	r      io.Reader
	packed int64
	total  int64
	cut    bool // the data ended where more was asked for
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.total += int64(n)
	if m.total > ratioFree && m.total/maxRatio > m.packed {
		return n, fmt.Errorf("%w: %d bytes unpack to more than %d times as many; this is no archive of images", ErrLimit, m.packed, maxRatio)
	}
	m.cut = n == 0 && err == io.EOF
	return n, err
}

// end checks what archive/tar lets pass: a tar ends with two blocks of zeros, one cut between two entries has none, and what
// follows them is padding. Reading to the end also verifies the checksum of gzip.
func (m *meter) end() error {
	if m.cut {
		return fmt.Errorf("%w: the archive has no end marker: it is truncated or not a tar", ErrCorrupt)
	}
	buf := make([]byte, 4096)
	for {
		n, err := m.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return fmt.Errorf("%w: more data follows the archive's end marker; concatenated archives are not read", ErrCorrupt)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: after the archive's end marker: %w", ErrCorrupt, err)
		}
	}
}

// zipfile is a zip archive.
type zipfile struct {
	*zip.Reader
	packed int64
	close  func() error
}

func openZip(name string) (*zipfile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	z, err := newZip(f, info.Size())
	if err != nil {
		f.Close()
		return nil, err
	}
	z.close = f.Close
	return z, nil
}

func newZip(r io.ReaderAt, size int64) (*zipfile, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%w: truncated or not a zip archive: %w", ErrCorrupt, err)
	}
	return &zipfile{Reader: z, packed: size, close: func() error { return nil }}, nil
}

func (z *zipfile) Close() error { return z.close() }

func (z *zipfile) files(ctx context.Context) ([]file, error) {
	if len(z.File) > maxFiles {
		return nil, fmt.Errorf("%w: more than %d entries", ErrLimit, maxFiles)
	}
	list := make([]file, 0, len(z.File))
	seen := make(map[string]bool, len(z.File))
	var total uint64
	for _, e := range z.File {
		f := file{name: zipName(e), size: int64(e.UncompressedSize64), dir: strings.HasSuffix(e.Name, "/")}
		if f.name == "" {
			continue
		}
		switch {
		case len(f.name) > maxName:
			return nil, fmt.Errorf("%w: a name longer than %d bytes", ErrLimit, maxName)
		case f.dir:
		case seen[f.name]:
			return nil, &Error{Entry: f.name, Err: fmt.Errorf("%w: appears twice in the archive", ErrCorrupt)}
		case e.Flags&1 != 0:
			return nil, &Error{Entry: f.name, Err: fmt.Errorf("%w: encrypted; store it without a password", ErrFormat)}
		case !e.Mode().IsRegular() && imageName(f.name):
			return nil, &Error{Entry: f.name, Err: fmt.Errorf("%w: a link in an archive is not followed; store the image itself", ErrFormat)}
		}
		if size := e.UncompressedSize64; size > 1<<40 || total+size > ratioFree && (total+size)/maxRatio > uint64(z.packed) {
			return nil, &Error{Entry: f.name, Err: fmt.Errorf("%w: the archive unpacks to more than %d times its size; this is no archive of images", ErrLimit, maxRatio)}
		}
		total += e.UncompressedSize64
		seen[f.name] = true
		list = append(list, f)
	}
	return list, ctx.Err()
}

func zipName(e *zip.File) string { return clean(strings.ReplaceAll(e.Name, `\`, "/")) }

func (z *zipfile) load(ctx context.Context, want map[string]int, limit int64, each func(int, func() ([]byte, error)) error) error {
	for _, e := range z.File {
		i, ok := want[zipName(e)]
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		blob := func() ([]byte, error) {
			r, err := e.Open()
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			defer r.Close()
			data, err := readAll(r, int64(e.UncompressedSize64), limit)
			if err != nil {
				return nil, err
			}
			if _, err := r.Read(make([]byte, 1)); err != io.EOF { // the checksum is verified at the end
				return nil, fmt.Errorf("%w: checksum or size is wrong: %w", ErrCorrupt, err)
			}
			return data, nil
		}
		if err := each(i, blob); err != nil {
			return err
		}
	}
	return nil
}
