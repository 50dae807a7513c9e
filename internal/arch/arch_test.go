// Package arch checks which packages of the project may know which.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "grindstone"

// parts are the steps of a model's way. None knows another: webhook, demo and main join them.
var parts = []string{"registry", "policy", "sanitize", "attest"}

// only names the one package that imports a dependency; all others use it through that package.
var only = map[string]string{
	"github.com/yalue/onnxruntime_go":  "sanitize/ort",
	"github.com/open-policy-agent/opa": "policy",
	"github.com/nats-io":               "webhook/queue",
}

// TestPartsAreApart looks through import clauses, tests included.
func TestPartsAreApart(t *testing.T) {
	imports := importsByFolder(t)
	for _, p := range parts {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(imports)), func(dir string) bool { return partOf(dir) == p }) {
			t.Errorf("no package of %s was found: is the test looking in the right place?", p)
		}
	}
	for dir, paths := range imports {
		for _, imported := range paths {
			if local, ok := strings.CutPrefix(imported, module+"/"); ok {
				if from, to := partOf(dir), partOf(local); from != "" && to != "" && from != to {
					t.Errorf("%s imports %s: %s must not know %s; let webhook or main join them", dir, imported, from, to)
				}
				if partOf(dir) != "" && (within(local, "webhook") || within(local, "demo")) {
					t.Errorf("%s imports %s: the parts do not know what joins them", dir, imported)
				}
			}
			for dependency, owner := range only {
				if within(imported, dependency) && !within(dir, owner) {
					t.Errorf("%s imports %s: only %s does", dir, imported, owner)
				}
			}
		}
	}
	if !slices.Contains(imports["sanitize/ort"], "github.com/yalue/onnxruntime_go") {
		t.Error("sanitize/ort was not found to import the ONNX Runtime binding: is the test looking in the right place?")
	}
}

// partOf names the part that a folder belongs to; "" for others.
func partOf(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	if slices.Contains(parts, first) {
		return first
	}
	return ""
}

// within tells whether p is folder or lies below it.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// importsByFolder maps each folder of the module to what its files import.
func importsByFolder(t *testing.T) map[string][]string {
	t.Helper()
	root, err := os.OpenRoot("../..")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	found := map[string][]string{}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || nested(root, name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[dir] = append(found[dir], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// nested tells whether a folder is a module of its own.
func nested(root *os.Root, dir string) bool {
	_, err := root.Stat(path.Join(dir, "go.mod"))
	return err == nil
}
