package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Garbage collection, which runs when a store is closed too, keeps what a quarantined package has, however old, and
// removes uploads that no package came for.
func TestQuarantineOutlivesTheGracePeriod(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	orphan := s.putBlob(repo, []byte("of no package"))
	s.desk.answer(&Denial{}, nil)
	refused := s.putBlob(repo, model("refused"))
	raw := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/json","digest":%q,"size":%d},"layers":[]}`, refused.Digest, refused.Size)
	s.expect(http.StatusForbidden, "PUT", "/v2/"+repo+"/manifests/v2", strings.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest,
		"X-Test-Identity", pusher)

	long := time.Now().Add(-2 * gracePeriod)
	blobs, err := filepath.Glob(filepath.Join(s.dir, "quarantine", repo, "blobs", "sha256", "*"))
	if err != nil || len(blobs) < 6 {
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
	for _, b := range blobs {
		if err := os.Chtimes(b, long, long); err != nil {
			t.Fatal(err)
		}
	}
	s = s.restart()
	for _, d := range []digest.Digest{orphan.Digest, refused.Digest, digest.FromString(raw)} {
		if _, ok := s.g.quarantine.blobSize(repo, d); ok {
			t.Errorf("%s is still there", d)
		}
	}
	if _, err := s.g.Fetch(t.Context(), repo, f.digest.String(), t.TempDir()); err != nil {
		t.Error(err)
	}
	// What is released now is new, whatever the age of its blobs.
	path, _ := sanitize(t)
	p, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: f.digest.String(), Replace: map[string]string{f.layers[1].Digest.String(): path}})
	if err != nil {
		t.Fatal(err)
	}
	s = s.restart()
	s.expect(http.StatusOK, "GET", "/v2/"+repo+"/manifests/"+p.Digest.String(), nil)
	s.expect(http.StatusOK, "GET", "/v2/"+repo+"/blobs/"+f.layers[0].Digest.String(), nil)
}

func TestDiscard(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	if err := s.g.Discard(t.Context(), repo, f.digest.String(), func(remove func() error) error { return remove() }); err != nil {
		t.Fatal(err)
	}
	if err := s.g.Discard(t.Context(), repo, f.digest.String(), func(remove func() error) error { return remove() }); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: %v, want ErrNotFound", err)
	}
	if _, err := s.g.Fetch(t.Context(), repo, f.digest.String(), t.TempDir()); !errors.Is(err, ErrNotFound) {
		t.Errorf("Fetch: %v, want ErrNotFound", err)
	}
	s.hidden(f, "v1") // the admitter still knows it
	s.pushPackage(repo, "v1", http.StatusCreated)
	if _, err := s.g.Fetch(t.Context(), repo, f.digest.String(), t.TempDir()); err != nil {
		t.Error(err)
	}
}

// A model is never in memory as a whole: not when it is pushed, fetched, released or pulled.
func TestLargeModelsAreStreamed(t *testing.T) {
	const size = 64 << 20
	s := serve(t, t.TempDir(), Limits{})
	path := filepath.Join(t.TempDir(), "large.onnx")
	large := append(model("large"), field(1000, bytes.Repeat([]byte("weights."), size/8))...)
	if err := os.WriteFile(path, large, 0o600); err != nil {
		t.Fatal(err)
	}
	d, n := digest.FromBytes(large), len(large)
	config := s.putBlob(repo, []byte("{}"))
	raw := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/json","digest":%q,"size":2},
		"layers":[{"mediaType":"application/onnx","digest":%q,"size":%d}]}`, config.Digest, d, n)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.expect(http.StatusCreated, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), f)
	r := s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v1", strings.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest)
	source := r.header.Get("Docker-Content-Digest")
	pkg, err := s.g.Fetch(t.Context(), repo, source, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: source, Replace: map[string]string{d.String(): pkg.Files[0].Path}}); err != nil {
		t.Fatal(err)
	}
	got, err := http.Get("http://" + s.host + "/v2/" + repo + "/blobs/" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	verifier := d.Verifier()
	if _, err := io.Copy(verifier, got.Body); err != nil || !verifier.Verified() {
		t.Errorf("pulled content differs (%v)", err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > size/4 {
		t.Errorf("%d MiB were allocated for a model of %d MiB", allocated>>20, size>>20)
	}
}
