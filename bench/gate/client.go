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
	name          string // of the model's file
	weights       ocispec.Descriptor
	head          []byte
	noise         *os.File
}

// newArtifact makes a package that nobody has seen. Its digests are computed here, before any clock runs.
func newArtifact(noise *os.File, size int64) (*artifact, error) {
	a := &artifact{config: []byte("{}"), model: onnx(), name: "model.onnx", head: make([]byte, 32), noise: noise}
	if _, err := rand.Read(a.head); err != nil {
		return nil, err
	}
	d, err := digest.FromReader(a.open(size))
	a.weights = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: size, Annotations: map[string]string{ocispec.AnnotationTitle: "weights.bin"}}
	return a, err
}

// withoutModel is the package with a text instead of the model, which nothing is done to.
func (a *artifact) withoutModel() *artifact {
	other := *a
	other.model, other.name = []byte("no model"), "README.md"
	return &other
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

// push pushes as oras does: the blobs, then the manifest under a tag.
func (a *artifact) push(ctx context.Context, c *http.Client, at place) error {
	repo, err := at.open(c)
	if err != nil {
		return err
	}
	config, model := content.NewDescriptorFromBytes("application/vnd.test.config+json", a.config), content.NewDescriptorFromBytes("application/octet-stream", a.model)
	model.Annotations = map[string]string{ocispec.AnnotationTitle: a.name}
	for _, blob := range []struct {
		d ocispec.Descriptor
		r io.Reader
	}{{a.weights, a.open(a.weights.Size)}, {model, bytes.NewReader(a.model)}, {config, bytes.NewReader(a.config)}} {
		if err := repo.Blobs().Push(ctx, blob.d, blob.r); err != nil {
			return err
		}
	}
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{model, a.weights},
	})
	if err != nil {
		return err
	}
	return repo.Manifests().PushReference(ctx, content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, text), bytes.NewReader(text), at.tag)
}

// pull pulls as oras does, and verifies every digest.
func pull(ctx context.Context, c *http.Client, from place) error {
	repo, err := from.open(c)
	if err != nil {
		return err
	}
	d, err := repo.Resolve(ctx, from.tag)
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

// place is where a model is.
type place struct{ host, repository, tag string }

func (p place) open(c *http.Client) (*remote.Repository, error) {
	repo, err := remote.NewRepository(p.host + "/" + p.repository)
	if err != nil {
		return nil, err
	}
	repo.PlainHTTP, repo.Client = true, c
	return repo, nil
}
