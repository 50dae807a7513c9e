package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// temporary is how names of files that are still being written begin.
const temporary = ".writing-"

// blob returns the path of a blob, whether it exists or not.
func (s *store) blob(repository string, d digest.Digest) string {
	return filepath.Join(s.dir(repository), "blobs", d.Algorithm().String(), d.Encoded())
}

// blobSize returns the size of a blob in bytes; false if there is no such blob.
func (s *store) blobSize(repository string, d digest.Digest) (int64, bool) {
	info, err := os.Stat(s.blob(repository, d))
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	return info.Size(), true
}

// sha256 computes the SHA-256 digest of a blob in hex, whatever it is named by.
func (s *store) sha256(ctx context.Context, repository string, d digest.Digest) (string, error) {
	f, err := os.Open(s.blob(repository, d))
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum, err := digest.SHA256.FromReader(withContext(ctx, f))
	return sum.Encoded(), err
}

// addBlob copies content into a repository that exists, durably, and returns its digest and size. The blob appears
// under its name when it is complete. If want is not empty, other content is refused with ErrDigest.
func (s *store) addBlob(ctx context.Context, repository string, content io.Reader, want digest.Digest) (digest.Digest, int64, error) {
	algorithm := digest.SHA256
	if want != "" {
		algorithm = want.Algorithm()
	}
	dir := filepath.Join(s.dir(repository), "blobs", algorithm.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", 0, err
	}
	f, err := os.CreateTemp(dir, temporary)
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	defer f.Close()
	hash := algorithm.Hash()
	n, err := io.Copy(io.MultiWriter(f, hash), withContext(ctx, content))
	if err != nil {
		return "", 0, err
	}
	d := digest.NewDigest(algorithm, hash)
	if want != "" && d != want {
		return "", 0, fmt.Errorf("%s: the content is %s: %w", want, d, ErrDigest)
	}
	if err := f.Sync(); err != nil {
		return "", 0, err
	}
	if err := os.Rename(f.Name(), s.blob(repository, d)); err != nil {
		return "", 0, err
	}
	return d, n, syncDirs(s.root, dir)
}

// linkBlob makes a blob of one store's repository part of a repository that exists in this store. It shares the file
// where the file system can and copies it otherwise. The content is checked against its digest before.
func (s *store) linkBlob(ctx context.Context, repository string, d digest.Digest, from *store, fromRepository string) error {
	if _, ok := s.blobSize(repository, d); ok {
		return nil
	}
	source := from.blob(fromRepository, d)
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	verifier := d.Verifier()
	if _, err := io.Copy(verifier, withContext(ctx, f)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("%s is damaged: %w", source, ErrDigest)
	}
	target := s.blob(repository, d)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	// Garbage collection goes by the time of a blob that no manifest refers to yet.
	now := time.Now()
	if err := os.Chtimes(source, now, now); err != nil {
		return err
	}
	if err := os.Link(source, target); err != nil && !os.IsExist(err) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, _, err := s.addBlob(ctx, repository, f, d)
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncDirs(s.root, filepath.Dir(target))
}

// syncIndex makes the index of a repository durable.
func (s *store) syncIndex(repository string) error {
	dir := s.dir(repository)
	if err := syncFile(filepath.Join(dir, "index.json")); err != nil {
		return err
	}
	return syncDirs(s.root, dir)
}

// syncBlobs makes blobs that were uploaded through olareg durable.
func (s *store) syncBlobs(repository string, ds []ocispec.Descriptor) error {
	dirs := map[string]bool{}
	for _, d := range distinct(ds) {
		path := s.blob(repository, d)
		if err := syncFile(path); err != nil {
			return err
		}
		dirs[filepath.Dir(path)] = true
	}
	for dir := range dirs {
		if err := syncDirs(s.root, dir); err != nil {
			return err
		}
	}
	return nil
}

// syncDirs makes the entries of dir, and of the directories above it up to root, durable.
func syncDirs(root, dir string) error {
	for {
		if err := syncFile(dir); err != nil {
			return err
		}
		if dir == root || len(dir) <= len(root) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// syncFile flushes a file or directory to disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func readIndex(path string) (*ocispec.Index, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	return &index, nil
}

// withContext returns a reader that fails when the context ends.
func withContext(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
