package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote"

	"grindstone/internal/externaldata"
	"grindstone/webhook/huggingface"
	"grindstone/webhook/remotefile"
)

// ModelHub is a source of push events that has Git repositories of models in place of packages: the Hugging Face Hub. The ONNX models of a commit
// become a package, whose tags are the commit and, while the branch is there, the branch.
type ModelHub struct {
	Hub     *huggingface.Hub
	Branch  string                 // whose commits are looked at, as in "main"; it is a tag, too
	Files   func(path string) bool // which ONNX files are wanted
	MaxFile int64                  // bytes of one file
	MaxSize int64                  // bytes of a commit's files that are wanted
}

const (
	hubArtifactType = "application/vnd.dev.grindstone.huggingface.model.v1"
	hubModel        = "dev.grindstone.huggingface.model" // annotation: the model repository's name
)

// bringCommit pushes the ONNX models of a commit, with the external data that they name, to this server's own registry, where they are intercepted.
// The package does not name the commit, so that one that changes nothing of the models is the same package, and joins its admission.
func (in *ingester) bringCommit(ctx context.Context, hub *ModelHub, i Ingestion, to *remote.Repository) error {
	model, commit := i.Event.Model, i.Event.Version
	listed, err := hub.Hub.Files(ctx, model, commit)
	if err != nil {
		return err
	}
	byName, others := map[string]huggingface.File{}, []string{}
	var wanted []string
	for _, f := range listed {
		byName[f.Path] = f
		switch {
		case !strings.EqualFold(path.Ext(f.Path), ".onnx"):
			others = append(others, f.Path)
		case hub.Files(f.Path):
			wanted = append(wanted, f.Path)
		}
	}
	if len(wanted) == 0 {
		return fmt.Errorf("%w: commit %s of %s has no ONNX file that is wanted here, only %s; models of other formats cannot be sanitized: export it to ONNX",
			remotefile.ErrUnsupported, commit, model, printable(strings.Join(others, ", "), 150))
	}
	budget := hub.MaxSize
	return in.pushFiles(ctx, i, filePackage{
		artifactType: hubArtifactType, annotations: map[string]string{hubModel: model}, files: wanted,
		download: func(ctx context.Context, name string, w io.Writer) error {
			f := byName[name]
			if f.Size > hub.MaxFile {
				return fmt.Errorf("%w: %s has %d bytes, more than %d (limits.blob)", remotefile.ErrUnsupported, name, f.Size, hub.MaxFile)
			}
			if budget -= f.Size; budget < 0 {
				return fmt.Errorf("%w: the commit's ONNX models have more than %d bytes (size)", remotefile.ErrUnsupported, hub.MaxSize)
			}
			return hub.Hub.Download(ctx, model, commit, f, w)
		},
		more: func(name string, f *os.File) (more []string) {
			if !slices.Contains(wanted, name) {
				return nil // it is external data itself
			}
			locations, err := locationsOf(f)
			if err != nil {
				in.log.Info("a model of a push event cannot be read; it is brought in, and will be held", "event", i.ID, "model", model, "file", name, "error", err)
			}
			for _, location := range locations { // one that is not there, or outside of the repository, is for the sanitizer to say
				if beside := path.Join(path.Dir(name), location); byName[beside].Path != "" {
					more = append(more, beside)
				}
			}
			return more
		},
		tags: func(ctx context.Context) ([]string, error) { return in.commitTags(ctx, hub, i) },
	}, to)
}

// locationsOf lists the external data files that a model names.
func locationsOf(f *os.File) ([]string, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	return externaldata.Locations(f, size)
}

// commitTags are the commit, and the branch if it is still there: events may come, or be tried again, in any order.
func (in *ingester) commitTags(ctx context.Context, hub *ModelHub, i Ingestion) ([]string, error) {
	head, err := hub.Hub.Commit(ctx, i.Event.Model, hub.Branch)
	switch {
	case err != nil && !errors.Is(err, remotefile.ErrNotFound):
		return nil, err
	case head == i.Event.Version:
		return []string{i.Event.Tag, hub.Branch}, nil
	}
	in.log.Info("a branch has gone on since a push event; its tag does not move", "event", i.ID, "model", i.Event.Model, "branch", hub.Branch, "commit", i.Event.Version, "head", printable(head, 40))
	return []string{i.Event.Tag}, nil
}
