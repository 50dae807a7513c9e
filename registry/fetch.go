package registry

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// Package is a quarantined package on local disk.
type Package struct {
	Push            // without Tag and Identity, which quarantine does not keep
	Manifest []byte // as pushed
	Files    []LocalFile
}

// LocalFile is a layer that Fetch wrote to disk.
type LocalFile struct {
	Name   string // as in File
	Path   string // where it is
	Digest string
	Size   int64 // bytes
}

// Fetch writes the files of a quarantined package into dir, which is created if need be: every layer with a title,
// under its title, so that external data lies beside its model, and every model; and of tar archives with models what is in their folders. Content is checked against its digest.
// A package with a Problem is written as far as its files have safe names; only an index cannot be fetched.
// Errors are of type *Error and match ErrNotFound, ErrPackage or ErrDigest where these apply.
func (g *Gateway) Fetch(ctx context.Context, repository, reference, dir string) (*Package, error) {
	p, err := g.fetch(ctx, repository, reference, dir)
	if err != nil {
		return nil, &Error{"fetch", repository, reference, err}
	}
	return p, nil
}

func (g *Gateway) fetch(ctx context.Context, repository, reference, dir string) (*Package, error) {
	d, m, err := g.quarantined(ctx, repository, reference)
	if err != nil {
		return nil, err
	}
	p := &Package{Manifest: m.raw}
	var files []layerFile
	if p.Push, files, err = g.describe(ctx, repository, d, m); err != nil {
		return nil, err
	}
	if m.index {
		return nil, fmt.Errorf("%w: %s", ErrPackage, p.Problem)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	extracted := map[digest.Digest]bool{}
	for _, f := range files {
		switch {
		case f.layer == "":
			err = g.copyOut(ctx, repository, f, root)
		case !extracted[f.layer]:
			extracted[f.layer] = true
			err = g.extract(ctx, repository, inArchive(files, f.layer), root)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		p.Files = append(p.Files, LocalFile{f.Name, filepath.Join(dir, filepath.FromSlash(f.Name)), f.Digest, f.Size})
	}
	return p, nil
}

// copyOut copies a blob to a file below root.
func (g *Gateway) copyOut(ctx context.Context, repository string, f layerFile, root *os.Root) error {
	in, err := os.Open(g.quarantine.blob(repository, f.digest))
	if err != nil {
		return err
	}
	defer in.Close()
	if err := root.MkdirAll(path.Dir(f.Name), 0o700); err != nil {
		return err
	}
	out, err := root.OpenFile(f.Name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	verifier := f.digest.Verifier()
	if _, err := io.Copy(io.MultiWriter(out, verifier), withContext(ctx, in)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("%s: %w", f.Digest, ErrDigest)
	}
	return out.Close()
}

// inArchive returns the files that are in one layer.
func inArchive(files []layerFile, layer digest.Digest) []layerFile {
	var inside []layerFile
	for _, f := range files {
		if f.layer == layer {
			inside = append(inside, f)
		}
	}
	return inside
}

// extract writes the files of one archive below root.
func (g *Gateway) extract(ctx context.Context, repository string, files []layerFile, root *os.Root) error {
	in, err := os.Open(g.quarantine.blob(repository, files[0].layer))
	if err != nil {
		return err
	}
	defer in.Close()
	wanted := map[string]digest.Digest{}
	for _, f := range files {
		wanted[f.Name] = f.digest
	}
	return extract(ctx, in, g.limits.ArchiveBytes, wanted, root)
}

// Discard removes a package from quarantine, for instance when it is released or rejected for good. Fetch and Release do
// not find it any more. Its blobs are removed a day later if no other package has them. guard is called while the package cannot be pushed, and
// removes it or does not.
func (g *Gateway) Discard(ctx context.Context, repository, reference string, guard func(remove func() error) error) error {
	d, _, err := g.quarantined(ctx, repository, reference)
	if err == nil {
		defer g.pushes.lock(repository + "@" + d.String())()
		err = guard(func() error { return g.quarantine.deleteManifest(ctx, repository, d) })
	}
	if err != nil {
		return &Error{"discard", repository, reference, err}
	}
	return nil
}

// Annotations returns those of a manifest in quarantine. Errors are those of Fetch.
func (g *Gateway) Annotations(ctx context.Context, repository, reference string) (map[string]string, error) {
	_, m, err := g.quarantined(ctx, repository, reference)
	if err != nil {
		return nil, err
	}
	return m.annotations, nil
}

// quarantined returns a manifest in quarantine by its digest.
func (g *Gateway) quarantined(ctx context.Context, repository, reference string) (digest.Digest, *manifest, error) {
	if !validName(repository) {
		return "", nil, fmt.Errorf("%w: invalid repository name", ErrNotFound)
	}
	d, err := parseDigest(reference)
	if err != nil {
		return "", nil, fmt.Errorf("%w: quarantine knows packages by digest: %w", ErrNotFound, err)
	}
	raw, mediaType, err := g.quarantine.manifest(ctx, repository, reference)
	if err != nil {
		return "", nil, err
	}
	if d.Algorithm().FromBytes(raw) != d {
		return "", nil, fmt.Errorf("the manifest: %w", ErrDigest)
	}
	m, err := parseManifest(mediaType, raw)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	return d, m, nil
}
