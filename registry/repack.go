package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
)

// repacked is an archive that was written anew: its digests before and after, without compression, which image configs know.
type repacked struct{ diffBefore, diffAfter digest.Digest }

// repack writes the archive in a layer to w with some files replaced: by names paths of the files that take their places, and sums
// what their SHA-256 must be, where it matters. All
// other entries keep their bytes, headers and order, and so does what follows the last one. The compression stays the same kind. The
// same input makes the same output, so that a release can be repeated.
func repack(ctx context.Context, layer io.Reader, by, sums map[string]string, w io.Writer) (repacked, error) {
	in, kind, err := expand(withContext(ctx, layer))
	if err != nil {
		return repacked{}, err
	}
	defer in.Close()
	out, err := compress(w, kind)
	if err != nil {
		return repacked{}, err
	}
	before, after := digest.SHA256.Digester(), digest.SHA256.Digester()
	target := io.MultiWriter(out, after.Hash())
	// archive/tar reads no further than it says, so that whatever it takes can be passed on in step with it.
	source := &tap{r: io.TeeReader(in, before.Hash())}
	t := tar.NewReader(source)
	dropPadding := false // of a replaced file
	for {
		var headers bytes.Buffer // of one entry, behind the padding of the one before
		source.to = &headers
		length := source.padding()
		h, err := t.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return repacked{}, err
		}
		padding := headers.Next(length)
		if !dropPadding {
			if _, err := target.Write(padding); err != nil {
				return repacked{}, err
			}
		}
		dropPadding = false
		if err != nil {
			if _, err := target.Write(headers.Bytes()); err != nil {
				return repacked{}, err
			}
			break
		}
		file, replaced := by[path.Clean(h.Name)]
		if !replaced || !isFile(h) {
			if _, err := target.Write(headers.Bytes()); err != nil {
				return repacked{}, err
			}
			source.to = target
			if _, err := io.Copy(io.Discard, t); err != nil { //nolint:gosec // inspection has bounded what the layer expands to
				return repacked{}, err
			}
			continue
		}
		source.to = io.Discard
		if _, err := io.Copy(io.Discard, t); err != nil { //nolint:gosec // as above
			return repacked{}, err
		}
		dropPadding = true
		if err := addEntry(target, h, file, sums[path.Clean(h.Name)]); err != nil {
			return repacked{}, err
		}
	}
	source.to = target
	if _, err := io.Copy(io.Discard, source); err != nil {
		return repacked{}, err
	}
	return repacked{before.Digest(), after.Digest()}, out.Close()
}

// addEntry writes a file with the header of another.
func addEntry(w io.Writer, h *tar.Header, file, sum string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	fresh := *h
	fresh.Size = info.Size()
	fresh.Mode &= 0o7777 // the type is not its business
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&fresh); err != nil { // the format of the old header has no room for the size
		head.Reset()
		fresh.Format = tar.FormatUnknown
		if err := tar.NewWriter(&head).WriteHeader(&fresh); err != nil {
			return err
		}
	}
	padding := make([]byte, -fresh.Size&(tarBlock-1))
	got := digest.SHA256.Digester()
	if _, err = io.Copy(w, io.MultiReader(&head, io.TeeReader(f, got.Hash()), bytes.NewReader(padding))); err != nil {
		return err
	}
	return checkReplaced(sum, got.Digest().Encoded())
}

// tap copies what is read through it.
type tap struct {
	r  io.Reader
	to io.Writer
	n  int64 // bytes that were read
}

// padding is how many bytes there are to the next block of a tar archive.
func (t *tap) padding() int { return int(-t.n & (tarBlock - 1)) }

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.n += int64(n)
	if n > 0 {
		if _, werr := t.to.Write(p[:n]); werr != nil {
			return n, werr
		}
	}
	return n, err
}
