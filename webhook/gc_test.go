package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// collect asks the server for garbage of any age.
func (s *serverProcess) collect(remove string) Collection {
	s.Helper()
	status, text := s.post("/api/v1/gc", `{"older_than": "0s", "remove": `+remove+`}`)
	var c Collection
	if err := json.Unmarshal([]byte(text), &c); status != http.StatusOK || err != nil {
		s.Fatalf("gc: %d %s", status, text)
	}
	return c
}

func kinds(c Collection) (all []string) {
	for _, g := range c.Garbage {
		all = append(all, g.Kind+" "+g.Repository)
	}
	slices.Sort(all)
	return all
}

// TestGarbage has one of every kind beside what must stay, looks, removes, and looks again.
func TestGarbage(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	s.pushModel("models/released", "v1", "a")
	released := s.settle()[0]
	if _, err := s.push("models/held", "v1", map[string][]byte{"model.pt": []byte("of another format")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.push("models/rejected", "v1", map[string][]byte{"model.pt": []byte("of another format")}); err != nil {
		t.Fatal(err)
	}
	for _, a := range s.settle() {
		if a.Source.Repository == "models/rejected" {
			s.post("/api/v1/admissions/"+a.ID+"/reject", `{"reason": "x"}`)
		}
	}
	for path, content := range map[string]string{
		"work/0199-gone/in/model.onnx": "12345", "work/" + released.ID + "/out": "1",
		"state/admissions/.tmp-1": "1", "state/logs/0199-gone.jsonl": "{}", "registry/quarantine/models/held/index.json.5": "{}",
		"registry/holders/models/gone/_by/0f/sha256-" + strings.Repeat("0", 64): "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"holder models/gone", "log ", "package models/rejected", "package models/released", "temporary ", "temporary ", "work ", "work "}
	if got := s.collect("false"); !slices.Equal(kinds(got), want) || got.Removed || got.Bytes < 100 {
		t.Fatalf("found %q, %+v", kinds(got), got)
	}
	offline, err := FindGarbage(t.Context(), dir, 0)
	if err != nil || len(offline) != len(want) {
		t.Errorf("offline: %+v, %v", offline, err)
	}
	if young, err := FindGarbage(t.Context(), dir, time.Hour); err != nil || len(young) != 0 {
		t.Errorf("what was just written is garbage: %+v, %v", young, err)
	}
	if got := s.collect("true"); !slices.Equal(kinds(got), want) || !got.Removed {
		t.Errorf("removed %q", kinds(got))
	}
	if got := s.collect("false"); len(got.Garbage) != 0 {
		t.Errorf("still there: %q", kinds(got))
	}

	// What is released is served as before, and pushing the same again joins it.
	s.checkReleased("models/released", "v1", "a", released)
	s.pushModel("models/released", "v2", "a")
	s.settle()
	s.checkReleased("models/released", "v2", "a", s.admission(released.ID))
	// What is held can still be decided about.
	held := s.admissions("?state=held")[0]
	if status, text := s.post("/api/v1/admissions/"+held.ID+"/approve", `{"reason": "x"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if a := s.settle()[0]; s.admission(held.ID).State != Released {
		t.Errorf("%s %s", a.State, a.Message)
	}
}

// TestGarbageKeepsWhatItDoesNotUnderstand: packages whose record is broken, or whose manifest is.
func TestGarbageKeepsWhatItDoesNotUnderstand(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	a := s.pushModel("models/a", "v1", "a")
	s.pushModel("models/b", "v1", "b")
	record := ""
	for _, one := range s.settle() {
		if one.Source.Digest == a.Digest.String() {
			record = filepath.Join(dir, "state", "admissions", one.ID+".json")
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // what was worked with goes after the end is recorded
		if left, err := os.ReadDir(filepath.Join(dir, "work")); err == nil && len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("something is left of the work")
		}
	}
	s.Kill()
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	found, err := FindGarbage(t.Context(), dir, 0)
	if err != nil || len(found) != 3 || found[0].Admission != "" || !strings.Contains(found[0].Why, "no admission knows it") {
		t.Errorf("%+v, %v", found, err)
	}
	if err := os.WriteFile(record, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := FindGarbage(t.Context(), dir, 0); err != nil || len(found) != 1 || found[0].Repository != "models/b" {
		t.Errorf("with a broken record: %+v, %v", found, err)
	}
	blob := filepath.Join(dir, "registry", "quarantine", "models/a", "blobs", "sha256", a.Digest.Encoded())
	if err := errors.Join(os.Remove(record), os.WriteFile(blob, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if found, err := FindGarbage(t.Context(), dir, 0); err != nil || slices.ContainsFunc(found, func(g Garbage) bool { return g.Repository == "models/a" }) {
		t.Errorf("with a broken manifest: %+v, %v", found, err)
	}
}

// slowQuarantine calls before when a package is to be discarded and during while it is.
type slowQuarantine struct{ before, during func() }

func (q slowQuarantine) RemoveStale(string, time.Time) error { return nil }

func (q slowQuarantine) Discard(_ context.Context, _, _ string, guard func(remove func() error) error) error {
	q.before()
	return guard(func() error {
		q.during()
		return nil
	})
}

// TestGarbageIsNotRetried: an operator who retries a rejected model while its package is being removed either keeps it, or comes after.
func TestGarbageIsNotRetried(t *testing.T) {
	p, err := NewPipeline(PipelineConfig{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p.store = openStore(t, t.TempDir())
	rejected := func(repository string) (*Admission, []Garbage) {
		a := create(t, p.store, repository, "sha256:1", "")
		if a, err = p.store.Update(a.ID, func(a *Admission) { a.enter(Denied, ReasonRejected, "", time.Now()) }); err != nil {
			t.Fatal(err)
		}
		return a, []Garbage{{Kind: GarbagePackage, Repository: repository, Digest: "sha256:1", Admission: a.ID}}
	}
	retry := func(a *Admission) {
		if _, err := p.Operate(t.Context(), a.ID, OperationRetry, "ada", ""); err != nil {
			t.Error(err)
		}
	}
	a, found := rejected("m/before")
	quarantine := slowQuarantine{before: func() { retry(a) }, during: func() { t.Error("the package of a model in work is removed") }}
	if removed, err := removeGarbage(t.Context(), t.TempDir(), found, quarantine, p.unlessInWork); err != nil || len(removed) != 0 {
		t.Errorf("%+v, %v", removed, err)
	}
	b, found := rejected("m/during")
	retried := make(chan struct{})
	quarantine = slowQuarantine{before: func() {}, during: func() {
		go func() { retry(b); close(retried) }()
		select {
		case <-retried:
			t.Error("it is retried while its package is removed")
		case <-time.After(100 * time.Millisecond):
		}
	}}
	if removed, err := removeGarbage(t.Context(), t.TempDir(), found, quarantine, p.unlessInWork); err != nil || len(removed) != 1 {
		t.Errorf("%+v, %v", removed, err)
	}
	<-retried
}
