package webhook

import (
	"context"
	"io"

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
	return in.pushFiles(ctx, i, filePackage{
		artifactType: mlflowArtifactType, annotations: map[string]string{mlflowModel: i.Event.Model}, files: files,
		download: func(ctx context.Context, name string, w io.Writer) error {
			return registry.Server.Download(ctx, folder+"/"+name, registry.MaxFile, w)
		},
		tags: func(context.Context) ([]string, error) { return []string{i.Event.Tag}, nil },
	}, to)
}

// registered reports whether a folder of artifacts holds a model that was released here.
func (p *Pipeline) registered(folder string) bool {
	return len(p.store.List(func(a *Admission) bool {
		return a.Released != nil && a.Released.Registered != nil && a.Released.Registered.Folder == folder
	})) > 0
}
