package registry

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Release says which quarantined package is released, and with which sanitized files.
type Release struct {
	Repository   string
	Tag          string            // for messages only: the tag is set by Gateway.Tag, when the attestation is attached
	SourceDigest string            // of the quarantined manifest
	Replace      map[string]string // digest of a file of the package -> path of the file that takes its place; empty releases the package as it is
	SHA256       map[string]string // digest of a file of the package -> what the SHA-256 of the file in its place must be, in hex; of one that is not named it may be any
	Twin         *Twin             // in place of Replace: the package gets this one's sanitized layers
}

// Prepared is a package in the released store.
type Prepared struct {
	ocispec.Descriptor // of the new manifest
}

// Artifact is a manifest with its blobs that is attached to a released package: a referrer, or a signature under
// cosign's tag.
type Artifact struct {
	MediaType string            // of the manifest
	Manifest  []byte            // exactly as it is stored
	Blobs     map[string][]byte // digest -> content; the empty JSON object need not be given
	Tag       string            // "" for a referrer
}

// Release puts a package with replaced layers into the released store, where it can be pulled by its digest and has no
// tag yet. A tar archive with a replaced file is written anew, with every other entry as it was. The new manifest differs from the
// pushed one in the digests and sizes of the replaced layers and in no other byte, and so does its config, where it names them
// (rootfs.diff_ids of an image, modelfs.diffIds of a ModelPack). It is named by its sha256 digest, which attestations are about. If anything is replaced, every model must be, and the package must have no Problem.
//
// Release, Attach and Tag can be repeated after a failure or a crash at any point; what they report as done survives
// one. Their errors are of type *Error and match ErrNotFound, ErrPackage or ErrDigest where these apply.
func (g *Gateway) Release(ctx context.Context, r Release) (Prepared, error) {
	p, err := g.release(ctx, r)
	if err != nil {
		return Prepared{}, &Error{"release", r.Repository, r.SourceDigest, err}
	}
	return p, nil
}

func (g *Gateway) release(ctx context.Context, r Release) (Prepared, error) {
	source, m, err := g.quarantined(ctx, r.Repository, r.SourceDigest)
	if err != nil {
		return Prepared{}, err
	}
	var replaced map[digest.Digest]ocispec.Descriptor
	if r.Twin != nil {
		replaced, err = g.twinLayers(ctx, r.Repository, m, *r.Twin)
	} else {
		replaced, err = g.newLayers(ctx, r, source, m)
	}
	if err != nil {
		return Prepared{}, err
	}
	if err := g.releaseContent(ctx, r.Repository, m, replaced); err != nil {
		return Prepared{}, err
	}
	raw := m.raw
	if len(replaced) > 0 {
		if raw, err = m.replace(replaced); err != nil {
			return Prepared{}, err
		}
	}
	d := digest.FromBytes(raw) // sha256, whatever it was pushed by
	if err := g.released.putManifest(ctx, r.Repository, d.String(), m.mediaType, raw); err != nil {
		return Prepared{}, err
	}
	return Prepared{ocispec.Descriptor{MediaType: m.mediaType, Digest: d, Size: int64(len(raw)), ArtifactType: m.artifactType}}, nil
}

// CheckIndex reports as an *IndexError what stands in the way of releasing a quarantined index; of another package it returns nil.
func (g *Gateway) CheckIndex(ctx context.Context, repository, sourceDigest string) error {
	_, m, err := g.quarantined(ctx, repository, sourceDigest)
	if err == nil && m.index {
		err = g.checkIndex(ctx, repository, m)
	}
	if err != nil {
		return &Error{"check", repository, sourceDigest, err}
	}
	return nil
}

// checkReplace refuses to release a package that is sanitized in part.
func checkReplace(p Push, files []layerFile, replace map[string]string) error {
	if len(replace) == 0 {
		return nil
	}
	if p.Problem != "" {
		return fmt.Errorf("%w: %s", ErrPackage, p.Problem)
	}
	for _, f := range p.Models {
		if replace[f.Digest] == "" {
			return fmt.Errorf("%w: there is no sanitized file for the model %s (%s)", ErrPackage, f.Name, f.Digest)
		}
	}
	for d := range replace {
		if !slices.ContainsFunc(files, func(f layerFile) bool { return f.Digest == d }) {
			return fmt.Errorf("%w: no file has the digest %s that is to be replaced", ErrPackage, d)
		}
	}
	return nil
}

// replace returns the manifest with the digests and sizes of layers and of the config replaced, every other byte as it was.
func (m *manifest) replace(by map[digest.Digest]ocispec.Descriptor) ([]byte, error) {
	type edit struct {
		span
		text string
	}
	var edits []edit
	descriptor := func(at span, of digest.Digest) error {
		d, ok := by[of]
		if !ok {
			return nil
		}
		ms := members(m.raw, at)
		for _, name := range []string{"data", "urls"} {
			if _, ok := lookup(ms, name); ok {
				return fmt.Errorf("%w: the descriptor of %s has %q", ErrPackage, of, name)
			}
		}
		digestAt, ok1 := lookup(ms, "digest")
		sizeAt, ok2 := lookup(ms, "size")
		if !ok1 || !ok2 {
			return fmt.Errorf("%w: the descriptor of %s has no size", ErrPackage, of)
		}
		edits = append(edits, edit{digestAt, fmt.Sprintf("%q", d.Digest)}, edit{sizeAt, fmt.Sprint(d.Size)})
		return nil
	}
	top := members(m.raw, root(m.raw))
	if at, ok := lookup(top, "config"); ok && m.config != nil {
		if err := descriptor(at, m.config.Digest); err != nil {
			return nil, err
		}
	}
	layers, _ := lookup(top, "layers")
	for i, at := range elements(m.raw, layers) {
		if err := descriptor(at, m.layers[i].Digest); err != nil {
			return nil, err
		}
	}
	sort.Slice(edits, func(i, j int) bool { return edits[i].start < edits[j].start })
	var b bytes.Buffer
	end := 0
	for _, e := range edits {
		b.Write(m.raw[end:e.start])
		b.WriteString(e.text)
		end = e.end
	}
	b.Write(m.raw[end:])
	return b.Bytes(), nil
}

// Attach stores an artifact in a repository of the released store. If its manifest has a subject, it is found among the
// subject's referrers.
func (g *Gateway) Attach(ctx context.Context, repository string, a Artifact) error {
	reference := a.Tag
	if reference == "" {
		reference = digest.FromBytes(a.Manifest).String()
	}
	if err := g.attach(ctx, repository, reference, a); err != nil {
		return &Error{"attach", repository, reference, err}
	}
	return nil
}

func (g *Gateway) attach(ctx context.Context, repository, reference string, a Artifact) error {
	if !validName(repository) || a.Tag != "" && !tagPattern.MatchString(a.Tag) {
		return fmt.Errorf("%w: invalid repository name or tag", ErrPackage)
	}
	m, err := parseManifest(a.MediaType, a.Manifest)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPackage, err)
	}
	if err := g.released.create(ctx, repository); err != nil {
		return err
	}
	for s, content := range a.Blobs {
		d, err := parseDigest(s)
		if err != nil {
			return fmt.Errorf("%w: blob %q: %w", ErrPackage, s, err)
		}
		if err := g.released.addBytes(ctx, repository, content, d); err != nil {
			return err
		}
	}
	for _, d := range m.descriptors() {
		if _, ok, err := g.released.findBlob(ctx, repository, d.Digest); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("%w: %s is neither given nor stored", ErrPackage, d.Digest)
		}
	}
	return g.released.putManifest(ctx, repository, reference, m.mediaType, a.Manifest)
}

// Tag makes a released package visible under a tag, moving the tag if it exists.
func (g *Gateway) Tag(ctx context.Context, repository, tag, manifestDigest string) error {
	if err := g.tag(ctx, repository, tag, manifestDigest); err != nil {
		return &Error{"tag", repository, tag, err}
	}
	return nil
}

func (g *Gateway) tag(ctx context.Context, repository, tag, manifestDigest string) error {
	if !validName(repository) || !tagPattern.MatchString(tag) {
		return fmt.Errorf("%w: invalid repository name or tag", ErrPackage)
	}
	d, err := parseDigest(manifestDigest)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPackage, err)
	}
	raw, mediaType, err := g.released.manifest(ctx, repository, d.String())
	if err != nil {
		return fmt.Errorf("%s: %w", d, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%w: a tag can name a sha256 digest only", ErrPackage)
	}
	if digest.FromBytes(raw) != d {
		return fmt.Errorf("the manifest: %w", ErrDigest)
	}
	return g.released.putManifest(ctx, repository, tag, mediaType, raw)
}
