package registry

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationModelPackPath names the file in a layer of a ModelPack (CNCF model specification v0.0.7).
const annotationModelPackPath = "org.cncf.model.filepath"

// onnxMediaTypes are the types of a layer that is one ONNX file. None of them is standard.
var onnxMediaTypes = []string{
	"application/vnd.grindstone.onnx.layer.v1",
	"application/onnx",
	"application/x-onnx",
	"application/vnd.onnx.model",
}

// layerFile is a layer that is a file with a name.
type layerFile struct {
	File
	digest digest.Digest
	model  bool          // an ONNX model
	layer  digest.Digest // the archive that the file is in; "" for a layer that is the file
}

// maxProblems is how many problems of a package are told.
const maxProblems = 10

// files returns the files of a package in the order of its layers, models of other formats than ONNX, and what prevents that all of its models are
// among the files. inspect looks at the content of a layer, and list into one that is a tar archive with a model.
func (m *manifest) files(inspect func(digest.Digest) (finding, error), list func(digest.Digest) ([]archived, error)) (files []layerFile, others []OtherModel, problems []string, err error) {
	more := 0
	problem := func(format string, args ...any) {
		if len(problems) < maxProblems {
			problems = append(problems, fmt.Sprintf(format, args...))
		} else {
			more++
		}
	}
	if m.index {
		problem("this is an image index: push each model as a manifest of its own")
		return nil, nil, problems, nil
	}
	var unread errArchive
	switch found, err := inspect(m.config.Digest); {
	case errors.As(err, &unread):
		problem("the config is an archive that cannot be read in full: %s", unread)
	case err != nil && !errors.Is(err, errTooLarge):
		return nil, nil, nil, err
	case err != nil || found != (finding{}):
		problem("the config holds a model: push it as a layer")
	}
	byName := map[string]digest.Digest{}
	listed := map[digest.Digest]bool{} // archives
	for _, d := range m.layers {
		found, err := inspect(d.Digest)
		others = append(others, otherModel(d, found)...)
		switch {
		case errors.Is(err, errTooLarge):
			problem("layer %s is too large to be looked through", d.Digest)
		case errors.As(err, &unread):
			problem("layer %s is an archive that cannot be read in full: %s", d.Digest, unread)
		case err != nil:
			return nil, nil, nil, err
		case found.inside != "" && found.tar:
			if len(d.URLs) > 0 || len(d.Data) > 0 {
				problem("layer %s has a model in it: push its content, as a blob only", d.Digest)
			}
			if listed[d.Digest] {
				continue
			}
			listed[d.Digest] = true
			inside, err := archivedFiles(d, list)
			if errors.As(err, &unread) {
				problem("layer %s has a model in it, but %s", d.Digest, unread)
				continue
			} else if errors.Is(err, errTooLarge) {
				problem("layer %s is too large to be looked through", d.Digest)
				continue
			} else if err != nil {
				return nil, nil, nil, err
			}
			for _, f := range inside {
				if other, ok := byName[f.Name]; ok && other != f.digest {
					problem("there are two different files %q", f.Name)
					continue
				}
				byName[f.Name] = f.digest
				files = append(files, f)
			}
			continue
		case found.inside != "":
			problem("layer %s is an archive with a model in it (%.200q): push the ONNX file as a layer of its own, or in a tar", d.Digest, found.inside)
		}
		model := found.model || namedONNX(d) && found.inside == ""
		if len(d.URLs) > 0 {
			problem("layer %s names URLs to fetch it from: push its content", d.Digest)
		}
		if model && len(d.Data) > 0 {
			problem("the manifest embeds the model %s: push it as a blob only", d.Digest)
		}
		name, err := fileName(d, model)
		if err != nil {
			problem("%v", err)
			continue
		}
		if other, ok := byName[name]; ok && other != d.Digest {
			problem("the layers %s and %s have the same title %q", other, d.Digest, name)
			continue
		}
		if name != "" {
			byName[name] = d.Digest
			files = append(files, layerFile{File: File{Name: name, Digest: d.Digest.String(), MediaType: d.MediaType, Size: d.Size}, digest: d.Digest, model: model})
		}
	}
	for _, f := range files {
		for dir := range folders(f.Name) {
			if _, ok := byName[dir]; ok {
				problem("the title %q is a file and a directory", dir)
			}
		}
	}
	if more > 0 {
		problems = append(problems, fmt.Sprintf("and %d more", more))
	}
	return files, others, problems, nil
}

// otherModel is the model of another format in a layer, if there is one.
func otherModel(d ocispec.Descriptor, found finding) []OtherModel {
	if found.model {
		return nil
	}
	name := d.Digest.String()
	if ts := titles(d); len(ts) > 0 {
		name = ts[0]
	}
	switch format := otherFormat(name, nil); {
	case found.other.Name != "": // in an archive
		return []OtherModel{found.other}
	case found.other.Format != "":
		return []OtherModel{{name, found.other.Format}}
	case format != "":
		return []OtherModel{{name, format}}
	}
	return nil
}

// typedModels are the layers of a package without any known model whose media types say that they are one.
func (m *manifest) typedModels() []OtherModel {
	var all []OtherModel
	for _, d := range m.layers {
		if typedModel(d.MediaType) {
			all = append(all, OtherModel{d.Digest.String(), "unknown"})
		}
	}
	return all
}

// archivedFiles returns the files in an archive as if each was a layer of the archive's type.
func archivedFiles(d ocispec.Descriptor, list func(digest.Digest) ([]archived, error)) ([]layerFile, error) {
	inside, err := list(d.Digest)
	if err != nil {
		return nil, err
	}
	var files []layerFile
	for _, f := range inside {
		files = append(files, layerFile{
			File: File{Name: f.name, Digest: f.digest.String(), MediaType: d.MediaType, Size: f.size}, digest: f.digest, model: f.model, layer: d.Digest,
		})
	}
	return files, nil
}

// titles returns the names that a layer gives its file: ORAS's title and ModelPack's file path, as far as present.
func titles(d ocispec.Descriptor) []string {
	var ts []string
	for _, key := range []string{ocispec.AnnotationTitle, annotationModelPackPath} {
		if t := d.Annotations[key]; t != "" {
			ts = append(ts, t)
		}
	}
	return ts
}

// namedONNX reports whether a layer says that it holds an ONNX model.
func namedONNX(d ocispec.Descriptor) bool {
	return slices.Contains(onnxMediaTypes, d.MediaType) || slices.ContainsFunc(titles(d), hasONNXSuffix)
}

func hasONNXSuffix(name string) bool { return strings.EqualFold(path.Ext(name), ".onnx") }

// fileName returns the relative path of the file in a layer, "" for a layer without a title. A model without a title
// is given a name. Names that could leave a directory, or that systems read differently, are an error.
func fileName(d ocispec.Descriptor, model bool) (string, error) {
	ts := titles(d)
	if len(ts) == 0 {
		if !model {
			return "", nil
		}
		return "model-" + d.Digest.Encoded()[:12] + ".onnx", nil
	}
	name := path.Clean(ts[0])
	if !safePath(name) {
		return "", fmt.Errorf("layer %s is titled %q, which is not a safe relative path", d.Digest, ts[0])
	}
	return name, nil
}
