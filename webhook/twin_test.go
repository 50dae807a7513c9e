package webhook

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushAt pushes a package of one model as `oras push` makes it at another time.
func (s *serverProcess) pushAt(repository, tag, name, created string, annotations map[string]string) {
	s.Helper()
	all := map[string]string{ocispec.AnnotationCreated: created}
	maps.Copy(all, annotations)
	if _, err := s.pushAnnotated(repository, tag, map[string][]byte{"model.onnx": testModel(name)}, all); err != nil {
		s.Fatal(err)
	}
}

// byTag returns the admission of each tag.
func byTag(list []Admission) map[string]Admission {
	all := map[string]Admission{}
	for _, a := range list {
		all[a.tag()] = a
	}
	return all
}

// TestTheSameFilesAreSanitizedOnce pushes packages of the same file that differ in their manifests, one after the other and while the first is sanitized. Each
// has its own release and attestation, of the same sanitized model.
func TestTheSameFilesAreSanitizedOnce(t *testing.T) {
	s := startServer(t, t.TempDir(), "-workers", "3", "-sanitizer", "slow-1s")
	s.pushAt("models/a", "v1", "a", "2026-01-01T00:00:01Z", nil)
	var both sync.WaitGroup
	for tag, created := range map[string]string{"v2": "2026-01-01T00:00:02Z", "v3": "2026-01-01T00:00:03Z"} {
		both.Go(func() { s.pushAt("models/a", tag, "a", created, nil) })
	}
	both.Wait()
	s.settle()
	s.pushAt("models/a", "v4", "a", "2026-01-01T00:00:04Z", nil)
	all := byTag(s.settle())
	if len(all) != 4 || s.sanitizerRuns() != "1" {
		t.Fatalf("%d admissions, %s runs", len(all), s.sanitizerRuns())
	}
	for tag, a := range all {
		s.checkReleased("models/a", tag, "a", a)
		if first := tag == "v1"; first != (a.Twin == nil) || !first && a.Twin.Released == a.Released.Digest {
			t.Errorf("%s is like %+v", tag, a.Twin)
		}
	}
}

// TestTwinsAreOfOneDecision: what differs in more than its manifest is sanitized by itself, and so is what another start of the server finds.
func TestTwinsAreOfOneDecision(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	s.pushAt("models/a", "v1", "a", "2026-01-01T00:00:01Z", nil)
	s.settle()
	s.pushAt("models/a", "pixels", "a", "2026-01-01T00:00:02Z", map[string]string{annotationPreprocess: "unit"})
	s.pushAt("models/b", "other", "a", "2026-01-01T00:00:03Z", nil)
	files := map[string][]byte{"model.onnx": testModel("a"), "model.onnx.data": []byte("weights")}
	if _, err := s.push("models/a", "files", files); err != nil {
		t.Fatal(err)
	}
	s.settle()
	if runs := s.sanitizerRuns(); runs != "4" {
		t.Errorf("%s runs of four that differ", runs)
	}
	s.Stop()
	s = startServer(t, dir)
	s.pushAt("models/a", "later", "a", "2026-01-01T00:00:04Z", nil)
	all := byTag(s.settle())
	if runs := s.sanitizerRuns(); runs != "1" {
		t.Errorf("%s runs after the next start", runs)
	}
	for tag, a := range all {
		if a.State != Released || a.Twin != nil {
			t.Errorf("%s: %s, twin %+v", tag, a.State, a.Twin)
		}
	}
}

// TestATwinThatIsGone: a package is sanitized by itself where its twin is no longer there, also when that is found out late.
func TestATwinThatIsGone(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	s.pushAt("models/a", "v1", "a", "2026-01-01T00:00:01Z", nil)
	s.settle()
	s.pushAt("models/a", "v2", "a", "2026-01-01T00:00:02Z", nil)
	s.settle()
	s.collect("true") // both leave quarantine
	s.pushAt("models/a", "v3", "a", "2026-01-01T00:00:03Z", nil)
	all := byTag(s.settle())
	if all["v2"].Twin == nil || all["v3"].Twin != nil || s.sanitizerRuns() != "2" {
		t.Fatalf("%s runs, twins %+v and %+v", s.sanitizerRuns(), all["v2"].Twin, all["v3"].Twin)
	}
	s.checkReleased("models/a", "v3", "a", all["v3"])

	s.pushAt("models/a", "v4", "a", "2026-01-01T00:00:04Z", nil)
	a := byTag(s.settle())["v4"]
	if a.Twin == nil || a.Twin.Admission != all["v3"].ID {
		t.Fatalf("v4 is like %+v", a.Twin)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	a.Released, a.Tags[0].Moved = nil, false // as before it was attested
	a.enter(Attesting, "", "", time.Now().UTC())
	record, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state", "admissions", a.ID+".json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	twin := digestOf(a.Twin.Source)
	if err := os.Remove(filepath.Join(dir, "registry", "quarantine", "models", "a", "blobs", "sha256", twin.Encoded())); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir)
	a = byTag(s.settle())["v4"]
	if a.Twin != nil || s.sanitizerRuns() != "1" {
		t.Errorf("%s runs, twin %+v", s.sanitizerRuns(), a.Twin)
	}
	if d, _, err := s.pull("models/a", "v4"); err != nil || d != a.Released.Digest {
		t.Errorf("v4 is %s, %v", d, err)
	}
}
