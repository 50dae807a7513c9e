package registry

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Notes of who sent what are stale when the content is gone, and stay when it is sent again before they are removed.
func TestStaleNotes(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	send := func(content string) (blob string) {
		d := s.putBlob(repo, []byte(content))
		return filepath.Join(s.dir, quarantineRoot, repo, "blobs", "sha256", d.Digest.Encoded())
	}
	find := func(before time.Time) []Stale {
		t.Helper()
		found, err := FindStale(s.dir, before)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	gone, again := send("gone"), send("again")
	send("stays")
	if found := find(time.Now().Add(time.Hour)); len(found) != 0 {
		t.Errorf("all content is there: %+v", found)
	}
	for _, path := range []string{gone, again} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if found := find(time.Now().Add(-time.Hour)); len(found) != 0 {
		t.Errorf("what was just sent is stale: %+v", found)
	}
	found := find(time.Now().Add(time.Hour))
	if len(found) != 1 || found[0].Repository != repo || found[0].Notes != 2 {
		t.Fatalf("%+v", found)
	}
	time.Sleep(10 * time.Millisecond)
	if send("again"); os.Remove(again) != nil { // the content is not there yet, or not any more: the note is young
		t.Fatal("it is not there")
	}
	if err := s.g.RemoveStale(repo, found[0].Newest); err != nil {
		t.Fatal(err)
	}
	if found := find(time.Now().Add(time.Hour)); len(found) != 1 || found[0].Notes != 1 {
		t.Errorf("sent again: %+v", found)
	}
	// Who sends what was collected can push it.
	send("again")
	send("gone")
	s.pushPackage(repo, "v1", http.StatusCreated)
	if err := s.g.RemoveStale(repo, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	notes, err := filepath.Glob(filepath.Join(s.dir, holdersRoot, repo, holdersFolder, "*", "*"))
	if err != nil || !strings.Contains(strings.Join(notes, " "), filepath.Base(gone)) {
		t.Errorf("notes of what is there are removed: %q, %v", notes, err)
	}
}
