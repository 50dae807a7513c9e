package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// newLayers puts the sanitized files of a package into the backend and returns what takes the place of which layer or config.
func (g *Gateway) newLayers(ctx context.Context, r Release, source digest.Digest, m *manifest) (map[digest.Digest]ocispec.Descriptor, error) {
	push, files, err := g.describe(ctx, r.Repository, source, m)
	if err != nil {
		return nil, err
	}
	if err := checkReplace(push, files, r.Replace); err != nil {
		return nil, err
	}
	if err := g.released.create(ctx, r.Repository); err != nil {
		return nil, err
	}
	replaced := map[digest.Digest]ocispec.Descriptor{}
	renamed := map[digest.Digest]digest.Digest{} // what configs call the layers
	for _, d := range distinct(m.layers) {
		by, diff, err := g.newLayer(ctx, r, d, files)
		if err != nil {
			return nil, err
		}
		if by != nil {
			replaced[d], renamed[d] = *by, by.Digest
			if diff != (repacked{}) {
				renamed[diff.diffBefore] = diff.diffAfter
			}
		}
	}
	if m.config != nil && len(renamed) > 0 {
		if err := g.newConfig(ctx, r.Repository, m.config.Digest, renamed, replaced); err != nil {
			return nil, err
		}
	}
	return replaced, nil
}

// releaseContent puts the content of a package that stays as it is into the backend. The new files are there by then, because they are what can
// fail: nothing of the package is readable before them.
func (g *Gateway) releaseContent(ctx context.Context, repository string, m *manifest, replaced map[digest.Digest]ocispec.Descriptor) error {
	if m.index {
		return g.checkIndex(ctx, repository, m)
	}
	for _, d := range distinct(m.descriptors()) {
		if _, ok := replaced[d]; ok {
			continue
		}
		if err := g.released.takeBlob(ctx, repository, d, g.quarantine, repository); err != nil {
			return err
		}
	}
	return nil
}

// checkIndex reports as an *IndexError that a manifest of an index has not been released before, as it was pushed.
func (g *Gateway) checkIndex(ctx context.Context, repository string, m *manifest) error {
	for _, d := range distinct(m.descriptors()) {
		_, _, err := g.released.manifest(ctx, repository, d.String())
		if errors.Is(err, ErrNotFound) {
			return &IndexError{d.String()}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// newLayer puts the layer that takes the place of a layer into the backend; nil where it stays.
func (g *Gateway) newLayer(ctx context.Context, r Release, layer digest.Digest, files []layerFile) (*ocispec.Descriptor, repacked, error) {
	if path, ok := r.Replace[layer.String()]; ok {
		by, err := g.released.addFile(ctx, r.Repository, path)
		if err == nil {
			err = checkReplaced(r.SHA256[layer.String()], by.Digest.Encoded())
		}
		return &by, repacked{}, err
	}
	names, sums := map[string]string{}, map[string]string{}
	for _, f := range inArchive(files, layer) {
		if path, ok := r.Replace[f.Digest]; ok {
			names[f.Name], sums[f.Name] = path, r.SHA256[f.Digest]
		}
	}
	if len(names) == 0 {
		return nil, repacked{}, nil
	}
	in, err := os.Open(g.quarantine.blob(r.Repository, layer))
	if err != nil {
		return nil, repacked{}, err
	}
	defer in.Close()
	out, err := os.CreateTemp(g.quarantine.dir(r.Repository), temporary)
	if err != nil {
		return nil, repacked{}, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	diff, err := repack(ctx, in, names, sums, out)
	if err != nil {
		return nil, repacked{}, err
	}
	by, err := g.released.addFile(ctx, r.Repository, out.Name())
	return &by, diff, err
}

// checkReplaced compares SHA-256 digests in hex. Without one to compare with, any will do.
func checkReplaced(want, got string) error {
	if want != "" && want != got {
		return fmt.Errorf("%w: its SHA-256 is %s, not %s", ErrReplaced, got, want)
	}
	return nil
}

// maxConfig bounds the configs that are searched for digests, in bytes.
const maxConfig = 16 << 20

// newConfig puts a config into the backend that names the new layers where the old one names the old ones; one that names none stays.
func (g *Gateway) newConfig(ctx context.Context, repository string, config digest.Digest, renamed map[digest.Digest]digest.Digest, replaced map[digest.Digest]ocispec.Descriptor) error {
	if _, isLayer := replaced[config]; isLayer {
		return fmt.Errorf("%w: the config is also a layer with a model", ErrPackage)
	}
	if size, ok := g.quarantine.blobSize(repository, config); !ok || size > maxConfig {
		return nil
	}
	raw, err := os.ReadFile(g.quarantine.blob(repository, config))
	if err != nil {
		return err
	}
	var pairs []string
	for before, after := range renamed {
		pairs = append(pairs, before.String(), after.String())
	}
	fresh := []byte(strings.NewReplacer(pairs...).Replace(string(raw)))
	if bytes.Equal(fresh, raw) {
		return nil
	}
	d := digest.FromBytes(fresh)
	replaced[config] = ocispec.Descriptor{Digest: d, Size: int64(len(fresh))}
	return g.released.addBytes(ctx, repository, fresh, d)
}
