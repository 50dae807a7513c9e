package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/attest"
	"grindstone/webhook/mlflow"
	"grindstone/webhook/remotefile"
)

// Registered is what a released package has become in a model registry.
type Registered struct {
	Run      mlflow.Run        `json:"run"`      // that keeps its files
	Folder   string            `json:"folder"`   // of the files, below the registry's root of artifacts
	Versions map[string]string `json:"versions"` // that were made, by the pushed ones
}

// Tags of the versions that are made, and of their runs.
const (
	tagAdmission     = "grindstone.admission"
	tagSourceVersion = "grindstone.source.version"
	tagSourceDigest  = "grindstone.source.digest" // of the pushed ONNX file
	tagDigest        = "grindstone.digest"        // of the released ONNX file
	tagPackage       = "grindstone.package"       // released, in this server's registry
	tagTransform     = "grindstone.transformation"
	tagSanitized     = "grindstone.sanitized"
	tagVerify        = "grindstone.verify"
)

const bundleFile = "attestation/bundle.sigstore.json" // of a run's artifacts: beside the model's folder, which keeps its files

// registerFiles gives the files of a released package to the model registry, with the attestation. No version has them yet. A step that is repeated
// goes on with the run that it began.
func (p *Pipeline) registerFiles(ctx context.Context, a *Admission, source EventSource, from *remote.Repository) error {
	server, run := source.Models.Server, mlflow.Run{}
	path := filepath.Join(p.scratch(a.ID), "run-"+digest.Digest(a.Released.Digest).Encoded()+".json")
	if data, err := os.ReadFile(path); err != nil || json.Unmarshal(data, &run) != nil {
		if run, err = server.StartRun(ctx, source.Models.Experiment, "grindstone "+a.ID, map[string]string{tagAdmission: a.ID, tagPackage: p.uri(a.Source.Repository, a.Released.Digest)}); err != nil {
			return handingOver(source.releasesTo(), err)
		}
		data, err := json.Marshal(run)
		if err != nil {
			return err
		}
		if err := writeFileAtomic(path, data); err != nil {
			return err
		}
		p.passing("run started")
	}
	artifacts, err := run.Artifacts()
	if err != nil {
		return err
	}
	folder := artifacts + "/" + mlflowFolder
	layers, err := layersOf(ctx, from, a.Released.Digest)
	if err != nil {
		return err
	}
	for _, layer := range layers {
		if err := upload(ctx, server, folder+"/"+layer.Annotations[ocispec.AnnotationTitle], from, layer); err != nil {
			return err
		}
	}
	bundles, err := layersOf(ctx, from, a.Released.Attestation)
	if err != nil {
		return err
	}
	if len(bundles) != 1 || bundles[0].MediaType != attest.BundleMediaType {
		return fmt.Errorf("the attestation %s has no sigstore bundle", a.Released.Attestation)
	}
	if err := upload(ctx, server, artifacts+"/"+bundleFile, from, bundles[0]); err != nil {
		return err
	}
	if err := server.EndRun(ctx, run.ID); err != nil {
		return handingOver(source.releasesTo(), err)
	}
	a.Released.Registered = &Registered{Run: run, Folder: folder, Versions: map[string]string{}}
	return nil
}

// layersOf reads the layers of a manifest.
func layersOf(ctx context.Context, from *remote.Repository, reference string) ([]ocispec.Descriptor, error) {
	d, err := from.Resolve(ctx, reference)
	if err != nil {
		return nil, err
	}
	text, err := content.FetchAll(ctx, from, d)
	if err != nil {
		return nil, err
	}
	var manifest ocispec.Manifest
	err = json.Unmarshal(text, &manifest)
	return manifest.Layers, err
}

// upload copies a blob to a file of the model registry. What does not have the blob's digest is an error.
func upload(ctx context.Context, server *mlflow.Server, name string, from *remote.Repository, blob ocispec.Descriptor) error {
	r, err := from.Fetch(ctx, blob)
	if err != nil {
		return err
	}
	defer r.Close()
	verified := content.NewVerifyReader(r, blob)
	if err := server.Upload(ctx, name, io.LimitReader(verified, blob.Size), blob.Size); err != nil {
		return handingOver(server.Host(), err)
	}
	return verified.Verify()
}

// registerVersion makes a new version of the model out of the files that are there, and points the alias at it, unless that has a version that was
// made of a newer one.
func (p *Pipeline) registerVersion(ctx context.Context, a *Admission, source EventSource, tag string) error {
	was, ok := strings.CutPrefix(tag, "v")
	registered := a.Released.Registered
	if _, err := strconv.Atoi(was); err != nil || !ok {
		return nil // a client's tag
	}
	if registered == nil {
		return fmt.Errorf("%s has no files in MLflow", a.Released.Digest) // the step before has failed
	}
	model := a.Source.Annotations[mlflowModel]
	made, err := source.Models.Server.Register(ctx, mlflow.Version{
		Model: model, Run: registered.Run, Folder: mlflowFolder, Description: p.versionDescription(a, was), Tags: p.versionTags(a, was),
	}, tagSourceVersion)
	if err != nil {
		return handingOver(source.releasesTo(), err)
	}
	p.passing("version registered")
	registered.Versions[was] = made
	if newer, err := p.newerRegistered(ctx, source.Models.Server, a.Source.Repository, was); err != nil || newer {
		return handingOver(source.releasesTo(), err)
	}
	return handingOver(source.releasesTo(), source.Models.Server.SetAlias(ctx, model, source.Models.Alias, made))
}

// newerRegistered reports whether a later version than that was released and is still there: who deletes a model and makes it anew begins with version 1 again.
func (p *Pipeline) newerRegistered(ctx context.Context, server *mlflow.Server, repository, version string) (bool, error) {
	number := func(text string) int {
		n, _ := strconv.Atoi(text) // the parser of events takes numbers only
		return n
	}
	registered := p.store.List(func(a *Admission) bool {
		return a.Source.Repository == repository && a.Released != nil && a.Released.Registered != nil
	})
	for _, a := range slices.Backward(registered) {
		for was, made := range a.Released.Registered.Versions {
			if number(was) <= number(version) {
				continue
			}
			run, err := server.RunOf(ctx, a.Source.Annotations[mlflowModel], made)
			if err == nil && run == a.Released.Registered.Run.ID {
				return true, nil
			} else if err != nil && !errors.Is(err, remotefile.ErrNotFound) {
				return false, err
			}
		}
	}
	return false, nil
}

func (p *Pipeline) versionDescription(a *Admission, was string) string {
	if a.Unsanitized() {
		return "Version " + was + " as it was pushed, approved without sanitizing. " + p.approval(a).Reason
	}
	return "Version " + was + ", sanitized by Grindstone."
}

// versionTags say where a version comes from, and how to check it. They are hints: only the attestation proves anything.
func (p *Pipeline) versionTags(a *Admission, was string) map[string]string {
	model := a.Source.Models[0]
	tags := map[string]string{
		tagAdmission: a.ID, tagSourceVersion: was, tagSourceDigest: model.Digest, tagDigest: model.Digest,
		tagPackage: p.uri(a.Source.Repository, a.Released.Digest), tagTransform: "none", tagSanitized: "false",
		tagVerify: fmt.Sprintf("grindstone verify %s --bundle %s --key grindstone.pub", mlflowFolder+"/"+model.Name, bundleFile),
	}
	if !a.Unsanitized() {
		tags[tagSanitized], tags[tagTransform], tags[tagDigest] = "true", a.Report.Transformation, "sha256:"+a.Report.Sanitized.SHA256
	} else {
		tags[tagVerify] += " --allow-approved"
	}
	return tags
}
