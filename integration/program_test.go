package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"grindstone/sanitize/ort"
)

// root is the folder of package main, seen from here.
const root = ".."

var folder string // of the program that the tests have built

func TestMain(m *testing.M) {
	code := m.Run()
	if folder != "" {
		os.RemoveAll(folder)
	}
	os.Exit(code)
}

// binary is the path of the program. It is built once, when the first test asks for it.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build also makes the sources of the program known to the cache of `go test`.
var build = sync.OnceValues(func() (path string, err error) {
	if folder, err = os.MkdirTemp("", "grindstone-test"); err != nil {
		return "", err
	}
	path = filepath.Join(folder, "grindstone")
	if out, err := exec.Command("go", "build", "-o", path, root).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, lookAtSources()
})

// files prints the paths of go.mod and of every folder and file of this module that a package is compiled from.
const files = `{{with .Module}}{{if .Main}}{{.GoMod}}{{"\n"}}{{$.Dir}}{{"\n"}}{{range $.GoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}` +
	`{{range $.CgoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{range $.EmbedFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`

// lookAtSources asks for the status of every source file of the program, and of their folders. `go test` answers from its cache as long as the test and the files it
// looked at are the same, and does not see what `go build` reads: without this a test would not run again when the program has changed.
func lookAtSources() error {
	list, err := exec.Command("go", "list", "-deps", "-f", files, root).Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	sources := 0
	for path := range strings.SplitSeq(string(list), "\n") {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return err
		}
		sources++
	}
	if sources == 0 {
		return errors.New("go list names no source of the program")
	}
	return nil
}

// needRuntime skips the test where there is no ONNX Runtime library.
func needRuntime(t *testing.T) {
	t.Helper()
	if _, err := ort.Load(); err != nil {
		t.Skipf("no ONNX Runtime library: %v", err)
	}
}

// writeConfig writes a configuration for the program into a folder and returns its path.
func writeConfig(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "grindstone.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
