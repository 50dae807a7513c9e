package mlflow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"grindstone/webhook/remotefile"
)

// Run is a run of the tracking server, whose artifacts hold files.
type Run struct {
	ID          string `json:"run_id"`
	ArtifactURI string `json:"artifact_uri"`
}

type keyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func keyValues(tags map[string]string) []keyValue {
	all := []keyValue{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, keyValue{key, tags[key]})
	}
	return all
}

type runAnswer struct {
	Run struct {
		Info Run `json:"info"`
	} `json:"run"`
}

// Run asks for a run.
func (s *Server) Run(ctx context.Context, id string) (Run, error) {
	var answer runAnswer
	err := s.get(ctx, "runs/get", url.Values{"run_id": {id}}, &answer)
	return answer.Run.Info, err
}

// StartRun makes a run in an experiment, and that where it is not there.
func (s *Server) StartRun(ctx context.Context, experiment, name string, tags map[string]string) (Run, error) {
	id, err := s.experiment(ctx, experiment)
	if errors.Is(err, remotefile.ErrNotFound) {
		var made struct {
			ID string `json:"experiment_id"`
		}
		if err = s.post(ctx, "experiments/create", map[string]string{"name": experiment}, &made); err != nil {
			made.ID, err = s.experiment(ctx, experiment) // somebody else was faster
		}
		id = made.ID
	}
	if err != nil {
		return Run{}, err
	}
	var answer runAnswer
	err = s.post(ctx, "runs/create", map[string]any{"experiment_id": id, "run_name": name, "start_time": time.Now().UnixMilli(), "tags": keyValues(tags)}, &answer)
	return answer.Run.Info, err
}

func (s *Server) experiment(ctx context.Context, name string) (string, error) {
	var answer struct {
		Experiment struct {
			ID    string `json:"experiment_id"`
			Stage string `json:"lifecycle_stage"`
		} `json:"experiment"`
	}
	err := s.get(ctx, "experiments/get-by-name", url.Values{"experiment_name": {name}}, &answer)
	if err == nil && answer.Experiment.Stage == "deleted" {
		err = fmt.Errorf("%w: MLflow's experiment %q is deleted: restore it, or configure another", remotefile.ErrUnsupported, name)
	}
	return answer.Experiment.ID, err
}

// EndRun marks a run as finished.
func (s *Server) EndRun(ctx context.Context, id string) error {
	return s.post(ctx, "runs/update", map[string]any{"run_id": id, "status": "FINISHED", "end_time": time.Now().UnixMilli()}, nil)
}

// Artifacts is the folder of a run's files, below the root of the server's artifacts.
func (r Run) Artifacts() (string, error) { return artifactFolder(r.ArtifactURI) }

// Version is a version of a registered model that is to be made.
type Version struct {
	Model       string
	Run         Run
	Folder      string // of the run's artifacts
	Description string
	Tags        map[string]string
}

// Register makes a version of a registered model and returns its number. If there is one of the same files with the same value of the tag named
// once, that is it: Register can be repeated. Run and tags alone do not tell: anybody can give them to a version of files of his own.
func (s *Server) Register(ctx context.Context, v Version, once string) (string, error) {
	type modelVersion struct {
		Name    string     `json:"name"`
		Version string     `json:"version"`
		Source  string     `json:"source"`
		Tags    []keyValue `json:"tags"`
	}
	source := strings.TrimSuffix(v.Run.ArtifactURI, "/") + "/" + v.Folder
	var there struct {
		Versions []modelVersion `json:"model_versions"`
	}
	if err := s.get(ctx, "model-versions/search", url.Values{"filter": {fmt.Sprintf("run_id = '%s'", v.Run.ID)}, "max_results": {"1000"}}, &there); err != nil {
		return "", err
	}
	for _, known := range there.Versions {
		if known.Name == v.Model && known.Source == source && slices.Contains(known.Tags, keyValue{once, v.Tags[once]}) {
			return known.Version, nil
		}
	}
	var made struct {
		Version modelVersion `json:"model_version"`
	}
	err := s.post(ctx, "model-versions/create", map[string]any{
		"name": v.Model, "source": source, "run_id": v.Run.ID, "description": v.Description, "tags": keyValues(v.Tags),
	}, &made)
	return made.Version.Version, err
}

// RunOf is the run that a version of a registered model is of.
func (s *Server) RunOf(ctx context.Context, model, version string) (string, error) {
	var answer struct {
		Version struct {
			RunID string `json:"run_id"`
		} `json:"model_version"`
	}
	err := s.get(ctx, "model-versions/get", url.Values{"name": {model}, "version": {version}}, &answer)
	return answer.Version.RunID, err
}

// SetAlias points an alias of a registered model at a version.
func (s *Server) SetAlias(ctx context.Context, model, alias, version string) error {
	return s.post(ctx, "registered-models/alias", map[string]string{"name": model, "alias": alias, "version": version}, nil)
}
