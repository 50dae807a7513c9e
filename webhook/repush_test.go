package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
)

// sanitizerRuns reads from the metrics how many runs of the sanitizer came to a good end.
func (s *serverProcess) sanitizerRuns() string {
	s.Helper()
	var metrics string
	s.get("/metrics", &metrics)
	for line := range strings.Lines(metrics) {
		if n, ok := strings.CutPrefix(line, `grindstone_sanitize_seconds_count{outcome="ok"} `); ok {
			return strings.TrimSpace(n)
		}
	}
	return "0"
}

func tagsOf(a Admission) []string {
	var names []string
	for _, t := range a.Tags {
		if t.Moved {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestPushingAgain pushes one digest under several tags, one after the other, both at once, and again when it is released: it is sanitized once.
func TestPushingAgain(t *testing.T) {
	s := startServer(t, t.TempDir(), "-workers", "2")
	var both sync.WaitGroup
	for _, tag := range []string{"v1", "v2"} {
		both.Go(func() { s.pushModel("models/a", tag, "a") })
	}
	both.Wait()
	s.settle()
	s.pushModel("models/a", "v3", "a")
	s.pushModel("models/a", "v3", "a")
	list := s.settle()
	if len(list) != 1 || !slices.Equal(tagsOf(list[0]), []string{"v1", "v2", "v3"}) || s.sanitizerRuns() != "1" {
		t.Fatalf("%s runs, %+v", s.sanitizerRuns(), list)
	}
	for _, tag := range []string{"v1", "v2", "v3"} {
		if d, _, err := s.pull("models/a", tag); err != nil || d != list[0].Released.Digest {
			t.Errorf("%s is %s, %v", tag, d, err)
		}
	}
	// The same package in another repository is another admission: nothing is said about one repository in another.
	s.pushModel("models/b", "v1", "a")
	if list := s.settle(); len(list) != 2 || s.sanitizerRuns() != "2" {
		t.Errorf("%s runs, %d admissions", s.sanitizerRuns(), len(list))
	}
}

// TestPushingASanitizedPackage pulls what was released and pushes it back under another tag: that moves, and nothing is sanitized again. A
// pushed model in its place, or in another repository, gets no such trust.
func TestPushingASanitizedPackage(t *testing.T) {
	s := startServer(t, t.TempDir())
	s.pushModel("models/a", "v1", "a")
	a := s.settle()[0]
	copied := memory.New()
	if _, err := oras.Copy(t.Context(), s.repository("models/a"), "v1", copied, "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	if _, err := oras.Copy(t.Context(), copied, "v1", s.repository("models/a"), "stable", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	list := s.settle()
	if len(list) != 1 || !slices.Equal(tagsOf(list[0]), []string{"stable", "v1"}) || s.sanitizerRuns() != "1" {
		t.Errorf("%s runs, %+v", s.sanitizerRuns(), list)
	}
	if d, _, err := s.pull("models/a", "stable"); err != nil || d != a.Released.Digest {
		t.Errorf("stable is %s, %v; released is %s", d, err, a.Released.Digest)
	}
	if _, err := oras.Copy(t.Context(), copied, "v1", s.repository("models/b"), "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	list = s.settle()
	if len(list) != 2 || list[0].Source.Repository != "models/b" || list[0].Released.Digest == a.Released.Digest {
		t.Errorf("in another repository: %+v", list)
	}
}

// TestNewestPushWinsWhileTheFirstIsInWork pushes two models under one tag, the second while the first is sanitized: the tag never points at
// what came of the first.
func TestNewestPushWinsWhileTheFirstIsInWork(t *testing.T) {
	s := startServer(t, t.TempDir(), "-workers", "2", "-sanitizer", "slow-1s")
	older := s.pushModel("models/a", "v1", "older").Digest.String()
	for deadline := time.Now().Add(30 * time.Second); s.admissions("")[0].State != Sanitizing; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first is not sanitized")
		}
	}
	newer := s.pushModel("models/a", "v1", "newer").Digest.String()
	ctx, cancel := context.WithCancel(t.Context())
	seen := map[string]bool{}
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			if d, err := s.repository("models/a").Resolve(ctx, "v1"); err == nil {
				seen[d.Digest.String()] = true
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	list := s.settle()
	time.Sleep(100 * time.Millisecond)
	cancel()
	watch.Wait()
	by := map[string]Admission{}
	for _, a := range list {
		by[a.Source.Digest] = a
	}
	if by[older].State != Released || len(tagsOf(by[older])) > 0 {
		t.Errorf("the older: %s, tags %v", by[older].State, tagsOf(by[older]))
	}
	if len(seen) != 1 || !seen[by[newer].Released.Digest] {
		t.Errorf("the tag pointed at %v; the newer was released as %s", seen, by[newer].Released.Digest)
	}
}

// pushIndex pushes an index of what has been pushed.
func (s *serverProcess) pushIndex(repository, tag string, manifests ...ocispec.Descriptor) {
	s.Helper()
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
	if err != nil {
		s.Fatal(err)
	}
	r, err := http.NewRequestWithContext(s.Context(), http.MethodPut, "http://"+s.address+"/v2/"+repository+"/manifests/"+tag, strings.NewReader(string(raw)))
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		s.Errorf("the index is answered %d", answer.StatusCode)
	}
}

// TestIndexOfSeveralModels pushes an index of two models, as clients do: its manifests first, which are sanitized each. The index names the
// pushed ones and stays in quarantine.
func TestIndexOfSeveralModels(t *testing.T) {
	s := startServer(t, t.TempDir())
	one, two := s.pushModel("models/a", "one", "one"), s.pushModel("models/a", "two", "two")
	s.pushIndex("models/a", "all", one, two)
	got := map[string]string{}
	for _, a := range s.settle() {
		got[a.tag()] = fmt.Sprint(a.State, " ", a.Reason)
		if a.tag() == "all" && !strings.Contains(a.Message, "index") {
			t.Errorf("the message does not say why: %s", a.Message)
		}
	}
	if got["one"] != "released " || got["two"] != "released " || got["all"] != "held no-model" {
		t.Errorf("%v", got)
	}
	if _, _, err := s.pull("models/a", "all"); err == nil {
		t.Error("the index is pulled")
	}
	// Nor can it be approved: the models that it names are not what was released.
	held := s.admissions("?state=held")[0]
	if status, text := s.post("/api/v1/admissions/"+held.ID+"/approve", `{"reason": "x"}`); status != http.StatusConflict || !strings.Contains(text, one.Digest.String()) {
		t.Errorf("%d %s", status, text)
	}
	if now := s.admission(held.ID); now.State != Held || now.Reason != ReasonNoModel {
		t.Errorf("%s %s", now.State, now.Reason)
	}
}

// TestIndexOfApprovedModels: an index can be approved when the models that it names have been.
func TestIndexOfApprovedModels(t *testing.T) {
	s := startServer(t, t.TempDir(), "-data", "")
	one := s.pushModel("models/a", "one", "one")
	s.settle()
	s.pushIndex("models/a", "all", one)
	approve := func(tag string) int {
		status, _ := s.post("/api/v1/admissions/"+s.admissions("?tag=" + tag)[0].ID+"/approve", `{"reason": "x"}`)
		return status
	}
	s.settle()
	if status := approve("all"); status != http.StatusConflict {
		t.Errorf("before its model: %d", status)
	}
	for _, tag := range []string{"one", "all"} {
		if status := approve(tag); status != http.StatusOK {
			t.Errorf("%s: %d", tag, status)
		}
		s.settle()
	}
	if a := s.admissions("?tag=all")[0]; a.State != Released {
		t.Errorf("%s %s %s", a.State, a.Reason, a.Message)
	}
}

// TestDeleteInQuarantine tries to delete a model that is in work: it is refused, and the model is released.
func TestDeleteInQuarantine(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "slow-1s")
	d := s.pushModel("models/a", "v1", "a")
	for _, path := range []string{"manifests/" + d.Digest.String(), "manifests/v1", "blobs/" + d.Digest.String()} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+s.address+"/v2/models/a/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("DELETE %s: %d", path, answer.StatusCode)
		}
	}
	s.checkReleased("models/a", "v1", "a", s.settle()[0])
}

// TestPushingWhileTagsAreMoved: a registry that takes its time to move a tag holds no push up, and the newest push of a tag has it in the end.
func TestPushingWhileTagsAreMoved(t *testing.T) {
	s := startServer(t, t.TempDir(), "-stop", "tag moved")
	a := s.pushModel("models/a", "v1", "a")
	s.reach() // it stays there
	pushed := make(chan error)
	for tag, name := range map[string]string{"v2": "a", "v1": "b"} { // one joins what is being released, the other takes its tag
		go func() {
			_, err := s.push("models/a", tag, map[string][]byte{"model.onnx": testModel(name)})
			pushed <- err
		}()
	}
	for range 2 {
		select {
		case err := <-pushed:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a push waits for the tag to be moved")
		}
	}
	s.Kill()
	s = startServer(t, s.dir)
	for _, admission := range s.settle() {
		tag := "v1"
		if admission.Source.Digest == a.Digest.String() {
			tag = "v2"
		}
		if admission.Released == nil {
			t.Fatalf("%+v", admission)
		}
		if d, _, err := s.pull("models/a", tag); err != nil || d != admission.Released.Digest {
			t.Errorf("%s is %s, %v; its newest push became %s", tag, d, err, admission.Released.Digest)
		}
	}
}
