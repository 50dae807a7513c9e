package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
)

// What follows is done with the gateway's own credentials, for releases.

// maxUpstreamManifest bounds what is read of a manifest, in bytes: more than any registry takes.
const maxUpstreamManifest = 16 << 20

func (u *upstream) manifest(ctx context.Context, repository, reference string) ([]byte, string, error) {
	r, err := u.repository(repository)
	if err != nil {
		return nil, "", err
	}
	d, content, err := r.Manifests().FetchReference(ctx, reference)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, "", ErrNotFound
	} else if err != nil {
		return nil, "", err
	}
	defer content.Close()
	raw, err := io.ReadAll(io.LimitReader(content, maxUpstreamManifest))
	if err != nil {
		return nil, "", err
	}
	if d.Digest.Algorithm().FromBytes(raw) != d.Digest {
		return nil, "", fmt.Errorf("the upstream's manifest %s: %w", reference, ErrDigest)
	}
	return raw, d.MediaType, nil
}

func (u *upstream) findBlob(ctx context.Context, repository string, d digest.Digest) (int64, bool, error) {
	r, err := u.repository(repository)
	if err != nil {
		return 0, false, err
	}
	found, err := r.Blobs().Resolve(ctx, d.String())
	if errors.Is(err, errdef.ErrNotFound) {
		return 0, false, nil
	}
	return found.Size, err == nil, err
}

// create uploads the empty JSON object, which the configs of attestations are.
func (u *upstream) create(ctx context.Context, repository string) error {
	empty := ocispec.DescriptorEmptyJSON
	return u.addBytes(ctx, repository, empty.Data, empty.Digest)
}

func (u *upstream) giveBlob(ctx context.Context, repository string, d digest.Digest, to *store, toRepository string) error {
	if _, ok := to.blobSize(toRepository, d); ok {
		return nil
	}
	r, err := u.repository(repository)
	if err != nil {
		return err
	}
	_, content, err := r.Blobs().FetchReference(ctx, d.String())
	if err != nil {
		return err
	}
	defer content.Close()
	_, _, err = to.addBlob(ctx, toRepository, content, d)
	return err
}

func (u *upstream) takeBlob(ctx context.Context, repository string, d digest.Digest, from *store, fromRepository string) error {
	f, err := os.Open(from.blob(fromRepository, d))
	if err != nil {
		return err
	}
	defer f.Close()
	return u.push(ctx, repository, f, d)
}

func (u *upstream) addFile(ctx context.Context, repository, path string) (ocispec.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	d, err := digest.SHA256.FromReader(withContext(ctx, f))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{Digest: d, Size: size}, u.push(ctx, repository, f, d)
}

func (u *upstream) addBytes(ctx context.Context, repository string, content []byte, d digest.Digest) error {
	if d.Algorithm().FromBytes(content) != d {
		return fmt.Errorf("%s: %w", d, ErrDigest)
	}
	return u.push(ctx, repository, bytes.NewReader(content), d)
}

// push uploads a blob unless the upstream has it. The upstream checks its digest.
func (u *upstream) push(ctx context.Context, repository string, content io.ReadSeeker, d digest.Digest) error {
	if _, ok, err := u.findBlob(ctx, repository, d); err != nil || ok {
		return err
	}
	r, err := u.repository(repository)
	if err != nil {
		return err
	}
	size, err := content.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	// Hidden behind a plain reader: the client would otherwise close a file that it may have to send again.
	return r.Blobs().Push(ctx, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: size}, struct{ io.Reader }{content})
}

// putManifest also keeps the index of referrers under the fallback tag where the upstream has no referrers.
func (u *upstream) putManifest(ctx context.Context, repository, reference, mediaType string, raw []byte) error {
	r, err := u.repository(repository)
	if err != nil {
		return err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if asked, err := parseDigest(reference); err == nil {
		if d.Digest = asked.Algorithm().FromBytes(raw); d.Digest != asked {
			return fmt.Errorf("%s: %w", reference, ErrDigest)
		}
	}
	return r.Manifests().PushReference(ctx, d, bytes.NewReader(raw), reference)
}
