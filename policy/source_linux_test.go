package policy

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFilesThatAreNone: a pipe among the files would be read for ever.
func TestFilesThatAreNone(t *testing.T) {
	root := dir(t, map[string]string{"a.rego": "package grindstone.admission\ndecision := {}", "r.rego": releaseStub})
	if err := unix.Mkfifo(root+"/data.json", 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Options{Dir: root}); !errors.Is(err, ErrLoad) || !strings.Contains(err.Error(), "data.json is neither a file nor a folder") {
		t.Errorf("a pipe: %v", err)
	}
}
