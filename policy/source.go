package policy

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

//go:embed default
var defaultFiles embed.FS

// Default returns the embedded policy: *.rego with their tests, and data.json. Copied to a directory it is a starting point.
func Default() fs.FS {
	sub, err := fs.Sub(defaultFiles, "default")
	if err != nil {
		panic(err) // the embedded directory's name is a constant
	}
	return sub
}

// source is a policy as read: modules by file name, tests apart, and the data document.
type source struct {
	uri     string
	modules map[string]*ast.Module
	tests   map[string]*ast.Module
	texts   map[string][]byte // of modules
	data    map[string]any
	unread  []string   // JSON and YAML files of other names than data
	broken  ast.Errors // what keeps modules from being parsed
}

// read reads the policy in dir, or the embedded one for "". Files and directories whose names begin with a dot are passed over
// (Kubernetes mounts a ConfigMap with such names beside the real ones).
func read(dir string) (*source, error) {
	files, uri := Default(), "urn:grindstone:policy:default"
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(abs); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s is not a directory: a policy is a directory of .rego files and data.json or data.yaml", abs)
		}
		files, uri = os.DirFS(abs), (&url.URL{Scheme: "file", Path: filepath.ToSlash(abs)}).String()
	}
	s := &source{uri: uri, modules: map[string]*ast.Module{}, tests: map[string]*ast.Module{}, texts: map[string][]byte{}, data: map[string]any{}}
	if err := s.walk(files, ".", 0); err != nil {
		return nil, err
	}
	if len(s.broken) > 0 {
		return nil, s.broken
	}
	if len(s.modules) == 0 {
		return nil, fmt.Errorf("%s holds no .rego file", dir)
	}
	return s, nil
}

const maxLinks = 8 // to folders, of which one leads to the other

// walk reads the files below a folder, and those below the folders that links in it lead to: Kubernetes makes such links for a ConfigMap's subfolders.
func (s *source) walk(files fs.FS, root string, links int) error {
	return fs.WalkDir(files, root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != root && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		}
		info, err := fs.Stat(files, name) // of what a link leads to
		switch {
		case err != nil && errors.Is(err, fs.ErrNotExist) && !isPolicyFile(name):
			return nil
		case err != nil:
			return err
		case info.IsDir() && links == maxLinks:
			return fmt.Errorf("%s: links to folders lead in a circle, or through more than %d", name, maxLinks)
		case info.IsDir():
			return s.walk(files, name, links+1)
		case isPolicyFile(name) && !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
		return s.add(files, name)
	})
}

// isData tells files of data: only those are read.
func isData(name string) bool {
	return slices.Contains([]string{"data.json", "data.yaml", "data.yml"}, path.Base(name))
}

func isPolicyFile(name string) bool { return isData(name) || path.Ext(name) == ".rego" }

// add reads one file: a module, a test, or data, which lies in the data document where it lies in the directory.
func (s *source) add(files fs.FS, name string) error {
	if !isPolicyFile(name) {
		if slices.Contains([]string{".json", ".yaml", ".yml"}, path.Ext(name)) {
			s.unread = append(s.unread, name)
		}
		return nil
	}
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	if isData(name) {
		var data map[string]any
		if err := util.Unmarshal(text, &data); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if dir := path.Dir(name); dir != "." {
			for _, part := range slices.Backward(strings.Split(dir, "/")) {
				data = map[string]any{part: data}
			}
		}
		return s.overlay(data)
	}
	module, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true, Capabilities: capabilities()})
	if errs := (ast.Errors)(nil); errors.As(err, &errs) {
		s.broken = append(s.broken, errs...)
		return nil // the others' errors are worth knowing, too
	} else if err != nil {
		return err
	}
	if strings.HasSuffix(name, "_test.rego") {
		s.tests[name] = module
		return nil
	}
	s.modules[name], s.texts[name] = module, text
	return nil
}

// packages are the names of the modules' packages, sorted and once each.
func (s *source) packages() []string {
	var all []string
	for _, m := range s.modules {
		all = append(all, strings.TrimPrefix(m.Package.Path.String(), "data."))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// overlay lays data over the data document: objects are merged, everything else is replaced.
func (s *source) overlay(data map[string]any) error {
	if _, taken := data["grindstone"]; taken {
		return errors.New("data may not hold the key grindstone: it would hide the policy's packages")
	}
	var plain any = data
	if err := util.RoundTrip(&plain); err != nil { // YAML and Go numbers become JSON numbers, and nothing is shared with the caller
		return fmt.Errorf("data is not JSON: %w", err)
	}
	if object, ok := plain.(map[string]any); ok {
		merge(s.data, object)
	}
	return nil
}

func merge(into, from map[string]any) {
	for key, value := range from {
		if object, ok := value.(map[string]any); ok {
			if below, ok := into[key].(map[string]any); ok {
				merge(below, object)
				continue
			}
		}
		into[key] = value
	}
}

// digest identifies what decides: every module's name and text, in order, and the data as canonical JSON. Tests do not count.
func (s *source) digest() (string, error) {
	data, err := json.Marshal(s.data)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range util.KeysSorted(s.texts) {
		fmt.Fprintf(h, "module %d %s %d\n", len(name), name, len(s.texts[name]))
		h.Write(s.texts[name])
	}
	fmt.Fprintf(h, "data %d\n", len(data))
	h.Write(data)
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
