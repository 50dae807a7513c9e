package registry

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Layers may be compressed by gzip or zstd. What begins like one of them has to be readable to its end: else another reader could get something out
// of it that this one does not.

// maxWindow is how far zstd may refer back, in bytes: the reader keeps as much in memory. The zstd program reads no more either, unless it is told to.
const maxWindow = 128 << 20

const errWindow = errArchive("its zstd window is larger than 128 MiB: compress it without --long, or with --long=27")

// compression of a layer.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

// compressionOf tells a compression by the first four bytes.
func compressionOf(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return gzipped
	case len(head) < 4:
		return plain
	case head[0] >= 0x1e && head[0] <= 0x28 && bytes.Equal(head[1:4], []byte{0xb5, 0x2f, 0xfd}): // old versions too, which fail
		return zstandard
	case head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}): // a frame that readers skip, before others
		return zstandard
	}
	return plain
}

// expand returns the content of a layer without its compression. It fails with an errArchive, and so may what it returns be damaged anywhere.
func expand(layer io.Reader) (io.ReadCloser, compression, error) {
	buffered := bufio.NewReaderSize(layer, 1<<16)
	head, _ := buffered.Peek(4)
	kind := compressionOf(head)
	switch kind {
	case gzipped:
		r, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, kind, errDamaged
		}
		return r, kind, nil
	case zstandard:
		// A frame that says how long it is has no window but that: in a stream, MaxMemory bounds it.
		r, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, kind, errDamaged
		}
		return zstdReader{r.IOReadCloser()}, kind, nil
	}
	return io.NopCloser(buffered), plain, nil
}

// zstdReader says what to do about a window that is too large.
type zstdReader struct{ io.ReadCloser }

func (z zstdReader) Read(p []byte) (int, error) {
	n, err := z.ReadCloser.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = errWindow
	}
	return n, err
}

// compress returns a writer that compresses like the layer that it replaces.
func compress(w io.Writer, c compression) (io.WriteCloser, error) {
	switch c {
	case gzipped:
		return gzip.NewWriter(w), nil
	case zstandard:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return struct {
		io.Writer
		io.Closer
	}{w, io.NopCloser(nil)}, nil
}
