package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestReleaseLikeATwin(t *testing.T) { eachBackend(t, testReleaseLikeATwin) }

// testReleaseLikeATwin releases a package with the layers that another was released with, and refuses that of what differs in a layer.
func testReleaseLikeATwin(t *testing.T, s *server) {
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	path, sanitized := sanitize(t)
	source := f.layers[1].Digest.String()
	first, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: f.digest.String(), Replace: map[string]string{source: path}})
	if err != nil {
		t.Fatal(err)
	}
	twin := Twin{f.digest.String(), first.Digest.String()}
	other := s.putBlob(repo, []byte("other weights"))
	put := func(tag, manifest string) (pushed string) {
		s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+tag, strings.NewReader(manifest), "Content-Type", ocispec.MediaTypeImageManifest, "X-Test-Identity", pusher)
		return digest.FromString(manifest).String()
	}

	manifest := strings.Replace(string(f.manifest), "größer", "kleiner", 1)
	pushed := put("v2", manifest)
	if ok, err := s.g.Twins(t.Context(), repo, pushed, twin); !ok || err != nil {
		t.Fatalf("not a twin: %v", err)
	}
	p, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: pushed, Twin: &twin})
	if err != nil {
		t.Fatal(err)
	}
	released := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/manifests/"+p.Digest.String(), nil).body
	want := strings.Replace(manifest, source, digest.FromBytes(sanitized).String(), 1)
	want = strings.Replace(want, `"size": `+itoa(f.layers[1].Size)+",", `"size": `+itoa(int64(len(sanitized)))+",", 1)
	if released != want {
		t.Errorf("released manifest\n%s\nwant\n%s", released, want)
	}

	for name, change := range map[string]func(*ocispec.Manifest){
		"another name":  func(m *ocispec.Manifest) { m.Layers[2].Annotations[ocispec.AnnotationTitle] = "net/other.data" },
		"another type":  func(m *ocispec.Manifest) { m.Layers[0].MediaType = "text/plain" },
		"another order": func(m *ocispec.Manifest) { slices.Reverse(m.Layers) },
		"another file": func(m *ocispec.Manifest) {
			m.Layers[2] = titled(other, "application/octet-stream", "net/model.onnx.data")
		},
		"one layer fewer": func(m *ocispec.Manifest) { m.Layers = m.Layers[:2] },
	} {
		var m ocispec.Manifest
		if err := json.Unmarshal(f.manifest, &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		pushed := put("v3", string(raw))
		if ok, err := s.g.Twins(t.Context(), repo, pushed, twin); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		if _, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: pushed, Twin: &twin}); !errors.Is(err, ErrPackage) {
			t.Errorf("%s: released, %v", name, err)
		}
	}
	for name, other := range map[string]Twin{
		"a source that is not in quarantine": {digest.FromString("x").String(), twin.Released},
		"a release that is not there":        {twin.Source, digest.FromString("x").String()},
	} {
		if ok, err := s.g.Twins(t.Context(), repo, pushed, other); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}
