package webhook

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"grindstone/registry"
)

func TestChangedFiles(t *testing.T) {
	write := func(dir, name, content string) (sum string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		sum, _, err := fileSHA256(path)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	pushed := t.TempDir()
	run := sanitizerRun{}
	for _, name := range []string{"v1/model.onnx", "v1/weights.bin", "v1/table.bin", "README.md"} {
		run.Package = append(run.Package, registry.LocalFile{Name: name, Digest: "sha256:" + write(pushed, name, name)})
	}
	out := t.TempDir()
	model, weights := write(out, "v1/model.onnx", "sanitized"), write(out, "v1/weights.bin", "sanitized, too")
	write(out, "v1/table.bin", "v1/table.bin") // copied as it was

	want := []ChangedFile{
		{"v1/model.onnx", run.Package[0].Digest, model},
		{"v1/weights.bin", run.Package[1].Digest, weights},
	}
	if got, err := changedFiles(run, out); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}

	for name, spoil := range map[string]func(path string) error{
		"another file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a link":       func(path string) error { return os.Symlink(filepath.Join(pushed, "README.md"), path) },
	} {
		path := filepath.Join(out, "README.md")
		if name == "another file" {
			path = filepath.Join(out, "stray.bin")
		}
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		var v *verdict
		if _, err := changedFiles(run, out); !errors.As(err, &v) || v.Reason != ReasonInvalidOutput || !strings.Contains(v.Message, filepath.Base(path)) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReleaseNeedsEveryChangedFile: a record without them, or a file that is gone, goes back to sanitizing and releases nothing.
func TestReleaseNeedsEveryChangedFile(t *testing.T) {
	p := &Pipeline{PipelineConfig: PipelineConfig{Dir: t.TempDir()}}
	a := &Admission{ID: "id"}
	if p.outputThere(a) {
		t.Error("nothing was written, and all of it is there")
	}
	a.Changed = []ChangedFile{{Name: "model.onnx"}, {Name: "weights.bin"}}
	if err := os.MkdirAll(p.outputDir(a.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, f := range a.Changed {
		if err := os.WriteFile(filepath.Join(p.outputDir(a.ID), f.Name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if last := i == len(a.Changed)-1; p.outputThere(a) != last {
			t.Errorf("with %d of %d files, all of them are there: %v", i+1, len(a.Changed), !last)
		}
	}
}
