package registry

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A repository that a full disk kept from being made does not keep the gateway from being closed, nor from being opened again; with room it is made.
func TestClosedOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := serve(t, filepath.Join(dir, "registry"), Limits{})
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, bytes.Repeat([]byte("x"), 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk does not get full: %v", err)
	}
	for _, repository := range []string{repo, "public/a"} {
		s.expect(http.StatusInternalServerError, "POST", "/v2/"+repository+"/blobs/uploads/", nil)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "quarantine", repo)); err != nil {
		t.Fatalf("no half of a repository is there: %v", err)
	}
	s = s.restart()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for _, repository := range []string{repo, "public/a"} {
		s.expect(http.StatusCreated, "POST", "/v2/"+repository+"/blobs/uploads/?digest=sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", strings.NewReader("x"), "X-Test-Identity", pusher)
	}
	s.restart()
}
