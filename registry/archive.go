package registry

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A layer may be a tar archive, as it is or compressed by gzip or zstd, with models inside: ModelKits, ModelPacks and images whose files
// are under /models have such layers. Their models are sanitized like others, and the archive is written anew around them.

const (
	maxEntries        = 1 << 17 // of an archive
	maxArchivedModels = 1 << 10 // in one archive; each is told to the policy and recorded
	maxName           = 1 << 10 // bytes of a file's name
)

// archived is a regular file in an archive, in the folder of a model or below.
type archived struct {
	name   string // clean relative path
	size   int64  // bytes
	digest digest.Digest
	model  bool
}

// errArchive says why the models of an archive cannot be found, or not be sanitized, in words for clients.
type errArchive string

const errDamaged = errArchive("it is damaged: pack it anew")

var errEntries = errArchive(fmt.Sprintf("it has more than %d entries: pack them into several archives", maxEntries))

// damage is what an error says about the archive in that it came up.
func damage(err error) error {
	if reason := errArchive(""); errors.As(err, &reason) {
		return reason
	}
	return errDamaged
}

func (e errArchive) Error() string { return string(e) }

// walkArchive visits the entries of a tar archive under their clean names. No more than budget bytes are expanded.
func walkArchive(layer io.Reader, budget int64, visit func(name string, h *tar.Header, content io.Reader) error) error {
	r, _, err := expand(layer)
	if err != nil {
		return err
	}
	defer r.Close()
	limited := &io.LimitedReader{R: r, N: budget}
	err = walkTar(limited, func(h *tar.Header, content io.Reader) error {
		return visit(path.Clean(h.Name), h, content)
	})
	if limited.N <= 0 {
		return errTooLarge
	}
	return err
}

// listArchive returns the models of an archive and what is in their folders or below, as far as their names are safe.
func listArchive(layer io.Reader, budget int64) ([]archived, error) {
	var all []archived
	seen := map[string]digest.Digest{}
	beside, models := map[string]bool{}, 0 // folders of the models
	err := walkArchive(layer, budget, func(name string, h *tar.Header, content io.Reader) error {
		if !isFile(h) {
			return nil
		}
		hash := digest.SHA256.Digester()
		counted := &counter{}
		tee := io.TeeReader(content, io.MultiWriter(hash.Hash(), counted))
		model := isONNX(tee, -1) || hasONNXSuffix(name)
		if _, err := io.Copy(io.Discard, tee); err != nil {
			return damage(err)
		}
		f := archived{name, counted.n, hash.Digest(), model}
		if other, twice := seen[name]; twice && other != f.digest {
			return errArchive(fmt.Sprintf("it has two different files %.200q", name))
		}
		seen[name] = f.digest
		if model && !safePath(name) {
			return errArchive(fmt.Sprintf("%.200q is not a safe relative path", h.Name))
		}
		if model {
			if models++; models > maxArchivedModels {
				return errArchive(fmt.Sprintf("it has more than %d models", maxArchivedModels))
			}
			beside[path.Dir(name)] = true
		}
		all = append(all, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var files []archived
	for _, f := range all {
		if f.model || safePath(f.name) && besideModel(f.name, beside) {
			files = append(files, f)
		}
	}
	return files, nil
}

// besideModel reports whether a file is in the folder of a model or below, where a model's external data may be.
func besideModel(name string, beside map[string]bool) bool {
	if beside["."] {
		return true
	}
	for dir := range folders(name) {
		if beside[dir] {
			return true
		}
	}
	return false
}

// folders yields the folders that a file is in by its clean relative name, the innermost first: "a/b" and "a" of "a/b/c".
func folders(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := strings.LastIndexByte(name, '/'); i > 0 && yield(name[:i]); i = strings.LastIndexByte(name[:i], '/') {
		}
	}
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// safePath reports whether a name stays below the folder that it is written to, on every system.
func safePath(name string) bool {
	bad := func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == ':' }
	return name != "." && len(name) <= maxName && fs.ValidPath(name) && !strings.ContainsFunc(name, bad)
}

// extract writes files of an archive below root.
func extract(ctx context.Context, layer io.Reader, budget int64, wanted map[string]digest.Digest, root *os.Root) error {
	return walkArchive(withContext(ctx, layer), budget, func(name string, h *tar.Header, content io.Reader) error {
		want, ok := wanted[name]
		if !ok || !isFile(h) {
			return nil
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		verifier := want.Verifier()
		if _, err := io.Copy(io.MultiWriter(f, verifier), content); err != nil {
			return err
		}
		if !verifier.Verified() {
			return fmt.Errorf("%s: %w", name, ErrDigest)
		}
		return f.Close()
	})
}
