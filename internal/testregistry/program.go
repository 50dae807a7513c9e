package testregistry

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// building is held while a program is built: two builds at once take memory and are no faster.
var building sync.Mutex

// Program returns the path of a Go program by its package and version. It is built once, outside this module and by the versions that its
// own module names, and kept in the user's cache folder. The test is skipped where that is impossible.
func Program(t *testing.T, pkg, version string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	file, err := program(pkg, version)
	if err != nil {
		t.Skipf("%s@%s cannot be built here: %v", pkg, version, err)
	}
	return file
}

func program(pkg, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	name := path.Base(pkg)
	dir := filepath.Join(cache, "grindstone", "programs", strings.ReplaceAll(pkg, "/", "_")+"@"+version)
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags=-s -w", pkg+"@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return file, nil
}
