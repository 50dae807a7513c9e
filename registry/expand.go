package registry

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Layers may be compressed by gzip or zstd. What begins like one of them has to be readable to its end: else another reader could get something out
// of it that this one does not.

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
		r, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, kind, errDamaged
		}
		return r.IOReadCloser(), kind, nil
	}
	return io.NopCloser(buffered), plain, nil
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
