package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
)

// artifact is a package of a model: model.onnx, whose weights of the given size are external data from a file of random bytes, with a fresh
// head so that no registry has seen them.
type artifact struct {
	config, model []byte
	weights       ocispec.Descriptor
	head          []byte
	noise         *os.File
}

// newArtifact makes a package that nobody has seen. Its digests are computed here, before any clock runs.
func newArtifact(noise *os.File, size int64) (*artifact, error) {
	a := &artifact{config: []byte("{}"), model: onnx(), head: make([]byte, 32), noise: noise}
	if _, err := rand.Read(a.head); err != nil {
		return nil, err
	}
	d, err := digest.FromReader(a.open(size))
	a.weights = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: size, Annotations: map[string]string{ocispec.AnnotationTitle: "weights.bin"}}
	return a, err
}

func (a *artifact) open(size int64) io.Reader {
	return io.MultiReader(bytes.NewReader(a.head), io.NewSectionReader(a.noise, 0, size-int64(len(a.head))))
}

// onnx is the least that has the structure of an ONNX model: an IR version and a graph.
func onnx() []byte {
	graph := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "g")
	model := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 8)
	return protowire.AppendBytes(protowire.AppendTag(model, 7, protowire.BytesType), graph)
}

// push pushes as oras does: the blobs, then the manifest under a tag. It returns the manifest's digest.
func (a *artifact) push(ctx context.Context, c *http.Client, host, repository, tag string) (ocispec.Descriptor, error) {
	repo, err := open(c, host, repository)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	config, model := content.NewDescriptorFromBytes("application/vnd.test.config+json", a.config), content.NewDescriptorFromBytes("application/octet-stream", a.model)
	model.Annotations = map[string]string{ocispec.AnnotationTitle: "model.onnx"}
	for _, blob := range []struct {
		d ocispec.Descriptor
		r io.Reader
	}{{a.weights, a.open(a.weights.Size)}, {model, bytes.NewReader(a.model)}, {config, bytes.NewReader(a.config)}} {
		if err := repo.Blobs().Push(ctx, blob.d, blob.r); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{model, a.weights},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, text)
	return d, repo.Manifests().PushReference(ctx, d, bytes.NewReader(text), tag)
}

// pull pulls as oras does, and verifies every digest.
func pull(ctx context.Context, c *http.Client, host, repository, tag string) error {
	repo, err := open(c, host, repository)
	if err != nil {
		return err
	}
	d, err := repo.Resolve(ctx, tag)
	if err != nil {
		return err
	}
	text, err := content.FetchAll(ctx, repo, d)
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		return err
	}
	for _, layer := range manifest.Layers {
		r, err := repo.Fetch(ctx, layer)
		if err != nil {
			return err
		}
		verified := content.NewVerifyReader(r, layer)
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, verified, make([]byte, 1<<20))
		if err == nil {
			err = verified.Verify()
		}
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", layer.Digest, err)
		}
	}
	return nil
}

func open(c *http.Client, host, repository string) (*remote.Repository, error) {
	repo, err := remote.NewRepository(host + "/" + repository)
	if err != nil {
		return nil, err
	}
	repo.PlainHTTP, repo.Client = true, c
	return repo, nil
}

// newClient has connections of its own, as a program that is started has.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}}
}
