package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const repo = "models/resnet"

func TestPushIsAcknowledgedAndDescribed(t *testing.T) {
	eachBackend(t, testPushIsAcknowledgedAndDescribed)
}

func testPushIsAcknowledgedAndDescribed(t *testing.T, s *server) {
	f, r := s.pushPackage(repo, "v1", http.StatusCreated)
	if got := r.header.Get("Docker-Content-Digest"); got != f.digest.String() {
		t.Errorf("Docker-Content-Digest %s, want %s", got, f.digest)
	}
	if got, want := r.header.Get("Location"), "/v2/"+repo+"/manifests/"+f.digest.String(); got != want {
		t.Errorf("Location %s, want %s", got, want)
	}
	size := int64(len(f.manifest) + len(`{"format":"onnx"}`))
	for _, l := range f.layers {
		size += l.Size
	}
	want := Push{
		Repository: repo, Tag: "v1", Digest: f.digest.String(), MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.cncf.model.manifest.v1+json", Identity: "ci@example.org", Size: size,
		Annotations: map[string]string{"org.example.note": "größer <als> &"},
		Blobs:       []string{digest.FromString(`{"format":"onnx"}`).String(), f.layers[0].Digest.String(), f.layers[1].Digest.String(), f.layers[2].Digest.String()},
		Models:      []File{{Name: "net/model.onnx", Digest: f.layers[1].Digest.String(), MediaType: "application/vnd.cncf.model.weight.v1.raw", Size: f.layers[1].Size}},
	}
	if got := s.desk.last(t); !reflect.DeepEqual(got, want) {
		t.Errorf("push\n got %+v\nwant %+v", got, want)
	}
}

// hidden checks every route by which a quarantined package could be seen.
func (s *server) hidden(f fixture, reference string) {
	s.Helper()
	base := "/v2/" + repo
	for _, method := range []string{"GET", "HEAD"} {
		r := s.expect(http.StatusNotFound, method, base+"/manifests/"+reference, nil)
		explanation := r.header.Get("Warning")
		if method == "GET" {
			var codes []string
			if codes, explanation = r.errors(s.T); codes[0] != "MANIFEST_UNKNOWN" {
				s.Errorf("by tag: %v", codes)
			}
		}
		if !strings.Contains(explanation, "adm-1") || !strings.Contains(explanation, "quarantined") {
			s.Errorf("%s by tag: the admission is not explained: %q", method, explanation)
		}
	}
	r := s.expect(http.StatusForbidden, "GET", base+"/manifests/"+f.digest.String(), nil)
	if codes, m := r.errors(s.T); codes[0] != "DENIED" || !strings.Contains(m, "adm-1") || !strings.Contains(m, "quarantined") {
		s.Errorf("by digest: %v %q", codes, m)
	}
	r = s.expect(http.StatusNotFound, "HEAD", base+"/manifests/"+f.digest.String(), nil)
	if !strings.Contains(r.header.Get("Warning"), "adm-1") {
		s.Errorf("HEAD by digest: the admission is not explained: %q", r.header.Get("Warning"))
	}
	for _, l := range f.layers {
		blob := base + "/blobs/" + l.Digest.String()
		for _, extra := range [][]string{nil, {"Range", "bytes=0-3"}, {"If-None-Match", `"x"`}} {
			if codes, _ := s.expect(http.StatusForbidden, "GET", blob, nil, extra...).errors(s.T); codes[0] != "DENIED" {
				s.Errorf("blob: %v", codes)
			}
		}
		s.expect(http.StatusNotFound, "HEAD", blob, nil)
		s.expect(http.StatusOK, "HEAD", blob, nil, "X-Test-Identity", pusher) // clients ask before and after an upload
		for _, target := range []string{"public/copy", "models/other"} {
			s.expect(http.StatusAccepted, "POST", "/v2/"+target+"/blobs/uploads/?mount="+l.Digest.String()+"&from="+repo, nil)
			for _, from := range []string{"../quarantine/" + repo, "x/../" + repo, "public/../../quarantine/" + repo} {
				s.expect(http.StatusBadRequest, "POST", "/v2/"+target+"/blobs/uploads/?mount="+l.Digest.String()+"&from="+from, nil)
			}
			s.expect(http.StatusNotFound, "GET", "/v2/"+target+"/blobs/"+l.Digest.String(), nil)
			s.expect(http.StatusNotFound, "HEAD", "/v2/"+target+"/blobs/"+l.Digest.String(), nil)
		}
	}
	if r := s.do("GET", base+"/tags/list", nil); r.status != http.StatusNotFound && strings.Contains(r.body, reference) {
		s.Errorf("tag list: %s", r.body)
	}
	if list := s.catalog(); strings.Contains(list, repo) {
		s.Errorf("catalog: %s", list)
	}
	if r := s.expect(http.StatusOK, "GET", base+"/referrers/"+f.digest.String(), nil); strings.Contains(r.body, "sha256:") {
		s.Errorf("referrers: %s", r.body)
	}
}

func TestQuarantineIsHiddenByEveryRoute(t *testing.T) {
	eachBackend(t, testQuarantineIsHiddenByEveryRoute)
}

func testQuarantineIsHiddenByEveryRoute(t *testing.T, s *server) {
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	s.hidden(f, "v1")
	s.restart().hidden(f, "v1")
}

func TestReferrersOfAnInterceptedRepositoryAreHidden(t *testing.T) {
	eachBackend(t, testReferrersOfAnInterceptedRepositoryAreHidden)
}

func testReferrersOfAnInterceptedRepositoryAreHidden(t *testing.T, s *server) {
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	empty := titled(s.putBlob(repo, []byte("{}")), ocispec.MediaTypeEmptyJSON, "")
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/example.signature",
		Config: empty, Layers: []ocispec.Descriptor{empty},
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: f.digest, Size: int64(len(f.manifest))},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(raw).String()
	r := s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+d, bytes.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest,
		"X-Test-Identity", pusher)
	if got := r.header.Get("OCI-Subject"); got != f.digest.String() {
		t.Errorf("OCI-Subject %q", got)
	}
	if p := s.desk.last(t); p.Problem == "" || p.Tag != "" || len(p.Models) > 0 {
		t.Errorf("a signature holds no model: %+v", p)
	}
	s.hidden(f, "v1")
	// Admitted as it is, the signature becomes a referrer.
	if _, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: d}); err != nil {
		t.Fatal(err)
	}
	if r := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/referrers/"+f.digest.String(), nil); !strings.Contains(r.body, d) {
		t.Errorf("referrers: %s", r.body)
	}
}

func TestDenialAndFailureLeaveNothingBehind(t *testing.T) {
	eachBackend(t, testDenialAndFailureLeaveNothingBehind)
}

func testDenialAndFailureLeaveNothingBehind(t *testing.T, s *server) {
	s.desk.answer(&Denial{ID: "adm-7", Reasons: []string{"license is missing", "publisher is not trusted"}}, nil)
	f, r := s.pushPackage(repo, "v1", http.StatusForbidden)
	codes, messages := r.errors(t)
	if len(codes) != 2 || codes[0] != "DENIED" || !strings.Contains(messages, "license is missing") || !strings.Contains(messages, "adm-7") {
		t.Errorf("denial: %v %q", codes, messages)
	}
	gone := func() {
		t.Helper()
		s.expect(http.StatusNotFound, "GET", "/v2/"+repo+"/manifests/v1", nil)
		s.expect(http.StatusNotFound, "GET", "/v2/"+repo+"/manifests/"+f.digest.String(), nil)
		if _, err := s.g.Fetch(t.Context(), repo, f.digest.String(), t.TempDir()); !errors.Is(err, ErrNotFound) {
			t.Errorf("Fetch: %v, want ErrNotFound", err)
		}
		if _, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: f.digest.String()}); !errors.Is(err, ErrNotFound) {
			t.Errorf("Release: %v, want ErrNotFound", err)
		}
	}
	gone()

	s.desk.answer(nil, errors.New("postgres://admin:secret@10.0.0.1 is down"))
	_, r = s.pushPackage(repo, "v1", http.StatusServiceUnavailable)
	codes, messages = r.errors(t)
	if codes[0] != "UNAVAILABLE" || strings.Contains(r.body, "postgres") || !strings.Contains(messages, "push again") {
		t.Errorf("failure: %v %q", codes, r.body)
	}
	gone()

	// What was acknowledged stays when a later push of it is denied.
	s.desk.answer(nil, nil)
	s.pushPackage(repo, "v1", http.StatusCreated)
	s.desk.answer(&Denial{Reasons: []string{"tag is protected"}}, nil)
	s.pushPackage(repo, "v2", http.StatusForbidden)
	if _, err := s.g.Fetch(t.Context(), repo, f.digest.String(), t.TempDir()); err != nil {
		t.Errorf("an acknowledged package is gone: %v", err)
	}
}

// sanitize writes a file that takes the place of the fixture's model.
func sanitize(t *testing.T) (path string, content []byte) {
	t.Helper()
	content = model("sanitized")
	path = filepath.Join(t.TempDir(), "sanitized.onnx")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// attestation is an artifact about a released manifest.
func attestation(t *testing.T, subject ocispec.Descriptor) Artifact {
	t.Helper()
	bundle := []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`)
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json", Config: ocispec.DescriptorEmptyJSON,
		Layers:  []ocispec.Descriptor{{MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", Digest: digest.FromBytes(bundle), Size: int64(len(bundle))}},
		Subject: &subject, Annotations: map[string]string{"dev.sigstore.bundle.content": "dsse-envelope"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Artifact{MediaType: ocispec.MediaTypeImageManifest, Manifest: raw, Blobs: map[string][]byte{digest.FromBytes(bundle).String(): bundle}}
}

func TestReleaseKeepsEverythingButTheModel(t *testing.T) {
	eachBackend(t, testReleaseKeepsEverythingButTheModel)
}

func testReleaseKeepsEverythingButTheModel(t *testing.T, s *server) {
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	path, sanitized := sanitize(t)
	source := f.layers[1].Digest
	p, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: f.digest.String(), Replace: map[string]string{source.String(): path}})
	if err != nil {
		t.Fatal(err)
	}
	base := "/v2/" + repo
	s.expect(http.StatusNotFound, "GET", base+"/manifests/v1", nil) // no tag yet
	if err := s.g.Attach(t.Context(), repo, attestation(t, p.Descriptor)); err != nil {
		t.Fatal(err)
	}
	if err := s.g.Tag(t.Context(), repo, "v1", p.Digest.String()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := s.expect(http.StatusOK, "GET", base+"/manifests/v1", nil)
		want := strings.ReplaceAll(string(f.manifest), source.String(), digest.FromBytes(sanitized).String())
		want = strings.Replace(want, `"size": `+itoa(f.layers[1].Size)+",", `"size": `+itoa(int64(len(sanitized)))+",", 1)
		if r.body != want {
			t.Errorf("released manifest\n%s\nwant\n%s", r.body, want)
		}
		if r.header.Get("Docker-Content-Digest") != p.Digest.String() || p.Size != int64(len(r.body)) {
			t.Errorf("digest %s, prepared %+v", r.header.Get("Docker-Content-Digest"), p)
		}
		if r := s.expect(http.StatusOK, "GET", base+"/blobs/"+digest.FromBytes(sanitized).String(), nil); r.body != string(sanitized) {
			t.Error("the released model is not the sanitized one")
		}
		if r := s.expect(http.StatusOK, "GET", base+"/blobs/"+f.layers[0].Digest.String(), nil); r.body != string(f.readme) {
			t.Errorf("readme %q", r.body)
		}
		s.expect(http.StatusForbidden, "GET", base+"/blobs/"+source.String(), nil)
		s.expect(http.StatusForbidden, "GET", base+"/manifests/"+f.digest.String(), nil)
		if r := s.expect(http.StatusOK, "GET", base+"/tags/list", nil); !strings.Contains(r.body, `"v1"`) {
			t.Errorf("tags: %s", r.body)
		}
		if list := s.catalog(); list != "" && !strings.Contains(list, repo) {
			t.Errorf("catalog: %s", list)
		}
		r = s.expect(http.StatusOK, "GET", base+"/referrers/"+p.Digest.String()+"?artifactType=application/vnd.dev.sigstore.bundle.v0.3%2Bjson", nil)
		var index ocispec.Index
		if err := json.Unmarshal([]byte(r.body), &index); err != nil || len(index.Manifests) != 1 {
			t.Fatalf("referrers: %s (%v)", r.body, err)
		}
		s = s.restart()
	}
}

func itoa(n int64) string { b, _ := json.Marshal(n); return string(b) }

func TestAReleasedPackageCanBePushedAgain(t *testing.T) {
	eachBackend(t, testAReleasedPackageCanBePushedAgain)
}

func testAReleasedPackageCanBePushedAgain(t *testing.T, s *server) {
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	path, _ := sanitize(t)
	p, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: f.digest.String(), Replace: map[string]string{f.layers[1].Digest.String(): path}})
	if err != nil {
		t.Fatal(err)
	}
	// The source again, and the sanitized package, of which the client uploads nothing because HEAD finds all blobs.
	s.pushPackage(repo, "v1", http.StatusCreated)
	raw := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/manifests/"+p.Digest.String(), nil).body
	s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v2", strings.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest)
	if got := s.desk.last(t); got.Tag != "v2" || got.Digest != p.Digest.String() || len(got.Models) != 1 {
		t.Errorf("push %+v", got)
	}
	if _, err := s.g.Fetch(t.Context(), repo, p.Digest.String(), t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestFetch(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	dir := filepath.Join(t.TempDir(), "work")
	p, err := s.g.Fetch(t.Context(), repo, f.digest.String(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.Manifest, f.manifest) || len(p.Models) != 1 || p.Push.Digest != f.digest.String() {
		t.Errorf("package %+v", p)
	}
	want := []string{"README.md", "net/model.onnx", "net/model.onnx.data"}
	for i, file := range p.Files {
		content, err := os.ReadFile(file.Path)
		if err != nil {
			t.Fatal(err)
		}
		if file.Name != want[i] || file.Path != filepath.Join(dir, filepath.FromSlash(want[i])) || file.Digest != digest.FromBytes(content).String() || file.Size != int64(len(content)) {
			t.Errorf("file %+v", file)
		}
	}
	if len(p.Files) != len(want) {
		t.Errorf("%d files, want %d", len(p.Files), len(want))
	}

	if err := os.WriteFile(s.g.quarantine.blob(repo, f.layers[2].Digest), []byte("bit rot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.Fetch(t.Context(), repo, f.digest.String(), t.TempDir()); !errors.Is(err, ErrDigest) {
		t.Errorf("Fetch of damaged content: %v, want ErrDigest", err)
	}
	path, _ := sanitize(t)
	_, err = s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: f.digest.String(), Replace: map[string]string{f.layers[1].Digest.String(): path}})
	if !errors.Is(err, ErrDigest) {
		t.Errorf("Release of damaged content: %v, want ErrDigest", err)
	}
}

func TestReleaseRefusesHalfMeasures(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	path, _ := sanitize(t)
	model, readme := f.layers[1].Digest.String(), f.layers[0].Digest.String()
	for name, r := range map[string]Release{
		"another layer only": {Replace: map[string]string{readme: path}},
		"unknown layer":      {Replace: map[string]string{model: path, digest.FromString("x").String(): path}},
		"absent file":        {Replace: map[string]string{model: path + ".absent"}},
		"changed file":       {Replace: map[string]string{model: path}, SHA256: map[string]string{model: strings.Repeat("0", 64)}},
		"no digest":          {SourceDigest: "v1"},
		"unknown digest":     {SourceDigest: digest.FromString("x").String()},
		"name with dots":     {Repository: "models/../" + repo},
	} {
		t.Run(name, func(t *testing.T) {
			if r.Repository == "" {
				r.Repository = repo
			}
			if r.SourceDigest == "" {
				r.SourceDigest = f.digest.String()
			}
			_, err := s.g.Release(t.Context(), r)
			var e *Error
			if !errors.As(err, &e) || e.Op != "release" {
				t.Errorf("err = %v", err)
			}
		})
	}
	s.hidden(f, "v1")
}

func TestOneProcessPerDirectory(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	_, err := New(Config{Dir: s.dir, Intercept: func(string) bool { return true }, Admitter: s.desk})
	if !errors.Is(err, ErrLocked) {
		t.Errorf("second gateway: %v, want ErrLocked", err)
	}
}

func TestNewReportsADamagedIndex(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	s.pushPackage(repo, "v1", http.StatusCreated)
	index := filepath.Join(s.dir, "quarantine", repo, "index.json")
	if err := s.g.Close(); err != nil {
		t.Fatal(err)
	}
	s.g = nil
	if err := os.WriteFile(index, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Dir: s.dir, Intercept: func(string) bool { return true }, Admitter: s.desk})
	if err == nil || !strings.Contains(err.Error(), index) {
		t.Errorf("err = %v, want one that names %s", err, index)
	}
}
