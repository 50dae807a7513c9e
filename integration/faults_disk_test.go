package integration

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"oras.land/oras-go/v2"

	"grindstone/webhook"
)

// TestFaultsOfADisk fills the disk under a server before a push and in the middle of the work on another. What was acknowledged is
// released when there is room again.
func TestFaultsOfADisk(t *testing.T) {
	needFaults(t)
	c := newCluster(t)
	smallDisk(t, c.dir)
	c.workers = []string{"server"}
	c.startServer("")
	t.Cleanup(c.processes["server"].stop) // before the disk is taken away
	c.awaitReady()
	w := &watcher{cluster: c, seen: map[acknowledged]time.Time{}}
	p := &pushers{cluster: c}
	c.acknowledgedWithin(p, 0, "before", 15*time.Second)
	c.settle(settling)

	c.acknowledgedWithin(p, 1, "in work", 15*time.Second)
	c.awaitState(webhook.Sanitizing)
	filler := fill(t, c.dir)
	store, _ := pack(t, tiny{name: "no room for it"}.file(t))
	if got, err := oras.Copy(t.Context(), store, "v1", repositoryOf(t, c.address, repositoryOfPusher(1), "alice"), "v1", oras.DefaultCopyOptions); err == nil {
		t.Errorf("a push to a full disk is acknowledged: %v", got)
	}
	if r, err := http.Get("http://" + c.address + "/readyz"); err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready with a full disk: %v, %v", r, err)
	} else {
		text, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if !strings.Contains(string(text), "the admission store is not writable") {
			t.Errorf("%s", text)
		}
	}
	if status, _, err := head(t.Context(), c.client, "http://"+c.address+"/v2/"+repositoryOfPusher(0)+"/manifests/"+tagOfPush(0)); err != nil || status != http.StatusOK {
		t.Errorf("what is released is answered with %d, %v", status, err)
	}
	time.Sleep(10 * time.Second) // the work comes to what cannot be recorded
	t.Logf("while the disk is full: %v", c.states())
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	c.settle(settling)
	c.acknowledgedWithin(p, 2, "after", 15*time.Second)
	c.settle(settling)
	t.Logf("with room again: %v", c.states())
	c.checkStates(p)
	c.retryHeld()
	c.checkEnd(p, w)
}

// TestStoppedOnAFullDisk: a server with a full disk, which could not make the repositories that were pushed to, ends without an error when it is stopped, and
// starts again.
func TestStoppedOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	smallDisk(t, dir)
	s := startServerIn(t, dir)
	filler := fill(t, dir)
	for _, repository := range []string{"models/a", "models/b/c"} {
		if status, _, text := s.call("", "POST", "/v2/"+repository+"/blobs/uploads/", nil); status != http.StatusInternalServerError {
			t.Errorf("an upload to a full disk is answered %d %s", status, text)
		}
	}
	if err := s.Stop(); err != nil {
		t.Errorf("it ends with %v\n%s", err, s.Stderr)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s = startServerIn(t, dir)
	s.upload("", "models/a", []byte("there is room"))
	if err := s.Stop(); err != nil {
		t.Errorf("with room again it ends with %v\n%s", err, s.Stderr)
	}
}

// smallDisk mounts a disk of 48 MiB on a folder until the test ends, or skips the test.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m,mode=0700"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill leaves no room on the disk of a folder, and returns the file that takes it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return path
}
