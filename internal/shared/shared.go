// Package shared locates the reference material (images, third-party models, conformance cases) that tests use where it is
// present. The project itself never needs it.
package shared

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Path returns the path of a reference file, or skips the test, saying which file is absent. The material is looked for in
// GRINDSTONE_SHARED, then in a folder named shared beside the checkout.
func Path(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(append([]string{root()}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("reference material is absent (%v); set GRINDSTONE_SHARED to its folder to run this test", err)
	}
	return p
}

func root() string {
	if dir := os.Getenv("GRINDSTONE_SHARED"); dir != "" {
		return dir
	}
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "..", "shared")
}
