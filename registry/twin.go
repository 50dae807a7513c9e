package registry

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Twin is a package that was released with sanitized layers, by its digests. Clients write the time into the manifest of what they push: the same
// files pushed twice are two packages.
type Twin struct {
	Source   string // of the quarantined manifest
	Released string // of what was made of it
}

// Twins reports whether a quarantined package can be released with the layers of another: its layers are those that the other was pushed
// with, in the same order under the same names, and what took their places is still there.
func (g *Gateway) Twins(ctx context.Context, repository, sourceDigest string, of Twin) (bool, error) {
	_, m, err := g.quarantined(ctx, repository, sourceDigest)
	if err == nil {
		_, err = g.twinLayers(ctx, repository, m, of)
	}
	if errors.Is(err, ErrTwin) || errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, &Error{"compare", repository, sourceDigest, err}
	}
	return true, nil
}

// twinLayers returns what takes the place of which layer or config of m, as in the other package. Where that cannot be told any more, or m has other layers, the
// error is ErrTwin.
func (g *Gateway) twinLayers(ctx context.Context, repository string, m *manifest, of Twin) (map[digest.Digest]ocispec.Descriptor, error) {
	replaced, err := g.likeTwin(ctx, repository, m, of)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrTwin, err)
	}
	return replaced, err
}

func (g *Gateway) likeTwin(ctx context.Context, repository string, m *manifest, of Twin) (map[digest.Digest]ocispec.Descriptor, error) {
	_, source, err := g.quarantined(ctx, repository, of.Source)
	if err != nil {
		return nil, err
	}
	raw, mediaType, err := g.released.manifest(ctx, repository, of.Released)
	if err != nil {
		return nil, err
	}
	if d := digest.FromBytes(raw); d.String() != of.Released {
		return nil, fmt.Errorf("the manifest: %w", ErrDigest)
	}
	made, err := parseManifest(mediaType, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	if m.index || source.index || !reflect.DeepEqual(m.layers, source.layers) || len(made.layers) != len(source.layers) {
		return nil, ErrTwin
	}
	before, after := source.layers, made.layers
	if source.config.Digest != made.config.Digest { // it names the layers
		if m.config.Digest != source.config.Digest {
			return nil, ErrTwin
		}
		before, after = append(slices.Clone(before), *source.config), append(slices.Clone(after), *made.config)
	}
	replaced := map[digest.Digest]ocispec.Descriptor{}
	for i, d := range before {
		if after[i].Digest == d.Digest {
			continue
		}
		if _, ok, err := g.released.findBlob(ctx, repository, after[i].Digest); err != nil {
			return nil, err
		} else if !ok {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, after[i].Digest)
		}
		replaced[d.Digest] = after[i]
	}
	if len(replaced) == 0 { // then it was not sanitized
		return nil, ErrTwin
	}
	return replaced, nil
}
