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
		sum, _, err := syncedSHA256(path, 1<<30)
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
		{"v1/model.onnx", run.Package[0].Digest, model, 0},
		{"v1/table.bin", run.Package[2].Digest, strings.TrimPrefix(run.Package[2].Digest, "sha256:"), 0},
		{"v1/weights.bin", run.Package[1].Digest, weights, 0},
	}
	if got, err := writtenFiles(run, out, 0); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	source := Source{Models: []Model{{Name: "v1/model.onnx", Digest: run.Package[0].Digest}}}
	a := &Admission{Source: source}
	if err := a.changed(source.Models[0], want, nil); err != nil || !reflect.DeepEqual(a.Changed, []ChangedFile{want[0], want[2]}) {
		t.Errorf("%v: %+v", err, a.Changed)
	}
	// What two models keep weights in has one place only.
	var v *verdict
	other := []ChangedFile{{"v1/weights.bin", run.Package[1].Digest, model, 1}}
	if err := (&Admission{Source: source}).changed(source.Models[0], want, other); !errors.As(err, &v) || v.Reason != ReasonSeveralModels || !strings.Contains(v.Message, `"v1/weights.bin"`) {
		t.Errorf("%v", err)
	}
	source.Models = append(source.Models, Model{Name: "v2/model.onnx", Digest: run.Package[0].Digest})
	if err := (&Admission{Source: source}).changed(source.Models[0], want, nil); !errors.As(err, &v) || v.Reason != ReasonSeveralModels {
		t.Errorf("%v", err)
	}
	if err := (&Admission{Source: source}).changed(source.Models[0], want[:1], nil); err != nil {
		t.Error(err)
	}
	if err := (&Admission{Source: source}).changed(source.Models[0], want[1:2], nil); !errors.As(err, &v) || v.Reason != ReasonInvalidOutput || !strings.Contains(v.Message, "unchanged") {
		t.Errorf("nothing has changed: %v", err)
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
		if _, err := writtenFiles(run, out, 0); !errors.As(err, &v) || v.Reason != ReasonInvalidOutput || !strings.Contains(v.Message, filepath.Base(path)) {
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
	if err := os.MkdirAll(p.outputDir(a.ID, 0), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, f := range a.Changed {
		if err := os.WriteFile(filepath.Join(p.outputDir(a.ID, 0), f.Name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if last := i == len(a.Changed)-1; p.outputThere(a) != last {
			t.Errorf("with %d of %d files, all of them are there: %v", i+1, len(a.Changed), !last)
		}
	}
}
