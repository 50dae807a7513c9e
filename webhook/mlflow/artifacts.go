package mlflow

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"grindstone/webhook/remotefile"
)

const (
	artifactsPath = "/api/2.0/mlflow-artifacts/artifacts"
	maxFiles      = 1000 // of a model, and as many folders
	maxDepth      = 16   // of its folders
)

// Folder is where the server keeps the files of a model version: a path below the root of its artifacts. Sources that the server does not serve
// itself (s3://..., file://...) are remotefile.ErrUnsupported: whoever registers a version chooses its source, and no other host is asked for that.
func (s *Server) Folder(ctx context.Context, model, version string) (string, error) {
	var answer struct {
		URI string `json:"artifact_uri"`
	}
	if err := s.get(ctx, "model-versions/get-download-uri", url.Values{"name": {model}, "version": {version}}, &answer); err != nil {
		return "", err
	}
	uri := answer.URI
	if rest, ok := strings.CutPrefix(uri, "runs:/"); ok {
		id, below, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		run, err := s.Run(ctx, id)
		if err != nil {
			return "", err
		}
		uri = strings.TrimSuffix(run.ArtifactURI, "/") + "/" + below
	}
	return artifactFolder(uri)
}

// artifactFolder is the path of a URI such as mlflow-artifacts:/1/RUN/artifacts/model.
func artifactFolder(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "mlflow-artifacts" {
		scheme, _, _ := strings.Cut(uri, ":")
		return "", fmt.Errorf("%w: the model's files are under %.40q, and not served by MLflow: start it with --serve-artifacts, and register models whose artifacts it keeps", remotefile.ErrUnsupported, scheme)
	}
	folder := path.Clean(strings.Trim(u.Path, "/"))
	if !remotefile.Safe(folder) {
		return "", fmt.Errorf("%w: %.200q is no folder of artifacts", remotefile.ErrUnsupported, uri)
	}
	return folder, nil
}

// Files lists the files of a folder and of those in it by their relative names, with slashes, sorted.
func (s *Server) Files(ctx context.Context, folder string) ([]string, error) {
	var all []string
	folders := 0
	var walk func(below string, depth int) error
	walk = func(below string, depth int) error {
		var answer struct {
			Files []struct {
				Path  string `json:"path"`
				IsDir bool   `json:"is_dir"`
			} `json:"files"`
		}
		if err := s.call(ctx, http.MethodGet, artifactsPath, url.Values{"path": {path.Join(folder, below)}}, nil, &answer); err != nil {
			return err
		}
		for _, f := range answer.Files {
			name := path.Join(below, f.Path)
			switch {
			case !remotefile.Safe(f.Path) || strings.Contains(f.Path, "/"):
				return fmt.Errorf("%w: %.200q is no name of a file", remotefile.ErrUnsupported, f.Path)
			case f.IsDir && depth >= maxDepth:
				return fmt.Errorf("%w: folders lie more than %d deep", remotefile.ErrUnsupported, maxDepth)
			case f.IsDir && folders >= maxFiles: // each is a request
				return fmt.Errorf("%w: the model has more than %d folders", remotefile.ErrUnsupported, maxFiles)
			case f.IsDir:
				folders++
				if err := walk(name, depth+1); err != nil {
					return err
				}
			case len(all) >= maxFiles:
				return fmt.Errorf("%w: the model has more than %d files", remotefile.ErrUnsupported, maxFiles)
			default:
				all = append(all, name)
			}
		}
		return nil
	}
	if err := walk("", 0); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: there are no files under %s", remotefile.ErrNotFound, folder)
	}
	slices.Sort(all)
	return all, nil
}

// Download copies a file to w. It fails if the file has more than limit bytes, or another length than the server announces.
func (s *Server) Download(ctx context.Context, name string, limit int64, w io.Writer) error {
	ctx, transfer := remotefile.WhileMoving(ctx)
	defer transfer.Stop()
	transfer.Patiently() // MLflow fetches the whole file from its bucket before it sends anything
	answer, err := s.do(ctx, http.MethodGet, artifactsPath+"/"+remotefile.Escaped(name), nil, nil, 0)
	if err != nil {
		return fmt.Errorf("download %s: %w", name, remotefile.Why(ctx, err))
	}
	defer answer.Body.Close()
	return remotefile.Copy(ctx, w, transfer.Reader(answer.Body), name, limit)
}

// Upload stores size bytes of r as a file.
func (s *Server) Upload(ctx context.Context, name string, r io.Reader, size int64) error {
	ctx, transfer := remotefile.WhileMoving(ctx)
	defer transfer.Stop()
	body := transfer.Sending(r)
	if size == 0 {
		body = http.NoBody
	}
	answer, err := s.do(ctx, http.MethodPut, artifactsPath+"/"+remotefile.Escaped(name), nil, body, size)
	if err != nil {
		return fmt.Errorf("upload %s: %w", name, remotefile.Why(ctx, err))
	}
	return answer.Body.Close()
}
