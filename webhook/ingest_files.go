package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
)

// filePackage is a package that is made of files of a model store: a layer for each, under its name. The same files always make the same package.
type filePackage struct {
	artifactType string
	annotations  map[string]string
	files        []string // names, with slashes
	download     func(ctx context.Context, name string, w io.Writer) error
	more         func(name string, f *os.File) []string  // files that one of the files needs besides; nil: none ever does
	tags         func(context.Context) ([]string, error) // asked for when all files are there
}

// ingestScratch begins the names of scratch folders, before the event's id.
const ingestScratch = "event-"

// pushFiles pushes the package to this server's own registry, where it is intercepted.
func (in *ingester) pushFiles(ctx context.Context, i Ingestion, p filePackage, to *remote.Repository) error {
	scratch := in.p.scratch(ingestScratch + i.ID) // what a kill leaves there goes at the next start
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	config := ocispec.DescriptorEmptyJSON
	if err := to.Blobs().Push(ctx, config, bytes.NewReader(config.Data)); err != nil {
		return err
	}
	config.Data = nil
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: p.artifactType,
		Config: config, Annotations: p.annotations,
	}
	for files := slices.Clone(p.files); len(manifest.Layers) < len(files); {
		name := files[len(manifest.Layers)]
		layer, more, err := in.pushFile(ctx, p, name, scratch, to)
		if err != nil {
			return err
		}
		layer.Annotations = map[string]string{ocispec.AnnotationTitle: name}
		manifest.Layers = append(manifest.Layers, layer)
		for _, m := range more {
			if !slices.Contains(files, m) {
				files = append(files, m)
			}
		}
	}
	slices.SortFunc(manifest.Layers, func(a, b ocispec.Descriptor) int {
		return strings.Compare(a.Annotations[ocispec.AnnotationTitle], b.Annotations[ocispec.AnnotationTitle])
	})
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	d := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	tags, err := p.tags(ctx)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if err := to.Manifests().PushReference(ctx, d, bytes.NewReader(text), tag); err != nil && !deniedByPolicy(err) {
			return fmt.Errorf("tag %s: %w", tag, err)
		} else if err != nil {
			in.log.Info("what a push event tells of was denied", "event", i.ID, "model", i.Event.Model, "version", i.Event.Version, "error", err)
		}
	}
	return nil
}

// pushFile copies one file by way of the disk: a registry wants its digest first.
func (in *ingester) pushFile(ctx context.Context, p filePackage, name, scratch string, to *remote.Repository) (d ocispec.Descriptor, more []string, err error) {
	f, err := os.CreateTemp(scratch, "download-*")
	if err != nil {
		return d, nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	hash := digest.SHA256.Digester()
	if err := p.download(ctx, name, io.MultiWriter(f, hash.Hash())); err != nil {
		return d, nil, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return d, nil, err
	}
	if p.more != nil {
		more = p.more(name, f)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return d, nil, err
	}
	d = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: hash.Digest(), Size: size}
	return d, more, to.Blobs().Push(ctx, d, io.NopCloser(f))
}
