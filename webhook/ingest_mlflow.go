package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/webhook/mlflow"
)

// ModelRegistry is a source of push events that has models in place of packages: MLflow. What is released becomes a new version there.
type ModelRegistry struct {
	Server     *mlflow.Server
	Alias      string // of the newest version that was released
	Experiment string // that the files of released versions are kept under, each in a run of its own
	MaxFile    int64  // bytes of one file of a model
}

const (
	mlflowArtifactType = "application/vnd.dev.grindstone.mlflow.model.v1"
	mlflowModel        = "dev.grindstone.mlflow.model" // annotation: the registered model's name
	mlflowFolder       = "model"                       // of the artifacts of a released version's run
)

// bringVersion pushes a version of a registered model to this server's own registry, where it is intercepted: a package with a layer for each
// file of the model's folder. The same files always make the same package. A version that this server has registered itself is left out; it is
// known by the folder of its files, not by anything that others can write.
func (in *ingester) bringVersion(ctx context.Context, source EventSource, i Ingestion, to *remote.Repository) error {
	registry := source.Models
	folder, err := registry.Server.Folder(ctx, i.Event.Model, i.Event.Version)
	if err != nil {
		return err
	}
	if in.p.registered(folder) {
		in.log.Info("a push event tells of a version that was released here", "event", i.ID, "model", i.Event.Model, "version", i.Event.Version)
		return nil
	}
	files, err := registry.Server.Files(ctx, folder)
	if err != nil {
		return err
	}
	scratch := in.p.scratch("event-" + i.ID) // what a kill leaves there goes at the next start
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
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: mlflowArtifactType,
		Config: config, Annotations: map[string]string{mlflowModel: i.Event.Model},
	}
	for _, name := range files {
		layer, err := in.bringFile(ctx, registry, folder+"/"+name, scratch, to)
		if err != nil {
			return err
		}
		layer.Annotations = map[string]string{ocispec.AnnotationTitle: name}
		manifest.Layers = append(manifest.Layers, layer)
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	d := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if err := to.Manifests().PushReference(ctx, d, bytes.NewReader(text), i.Event.Tag); err != nil && !deniedByPolicy(err) {
		return fmt.Errorf("tag %s: %w", i.Event.Tag, err)
	} else if err != nil {
		in.log.Info("what a push event tells of was denied", "event", i.ID, "model", i.Event.Model, "version", i.Event.Version, "error", err)
	}
	return nil
}

// bringFile copies one file by way of the disk: a registry wants its digest first.
func (in *ingester) bringFile(ctx context.Context, registry *ModelRegistry, name, scratch string, to *remote.Repository) (ocispec.Descriptor, error) {
	f, err := os.CreateTemp(scratch, "download-*")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	hash := digest.SHA256.Digester()
	if err := registry.Server.Download(ctx, name, registry.MaxFile, io.MultiWriter(f, hash.Hash())); err != nil {
		return ocispec.Descriptor{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: hash.Digest(), Size: size}
	return d, to.Blobs().Push(ctx, d, io.NopCloser(f))
}

// registered reports whether a folder of artifacts holds a model that was released here.
func (p *Pipeline) registered(folder string) bool {
	return len(p.store.List(func(a *Admission) bool {
		return a.Released != nil && a.Released.Registered != nil && a.Released.Registered.Folder == folder
	})) > 0
}
