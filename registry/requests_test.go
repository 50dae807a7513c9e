package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whatever is wrong with a request is answered with a code of the OCI specification, and never with a 5xx.
func TestBadRequests(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{ManifestBytes: 2000, BlobBytes: 1000})
	sum := digest.FromString("x").String()
	config := s.putBlob(repo, []byte("{}"))
	manifest := func(config ocispec.Descriptor, extra string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/json","digest":%q,"size":%d},"layers":[]%s}`,
			ocispec.MediaTypeImageManifest, config.Digest, config.Size, extra)
	}
	absent := ocispec.Descriptor{Digest: digest.FromString("absent"), Size: 6}
	wrongSize := config
	wrongSize.Size++
	chunked := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	oci := []string{"Content-Type", ocispec.MediaTypeImageManifest}

	for name, c := range map[string]struct {
		method, path string
		body         io.Reader
		header       []string
		status       int
		code         string
	}{
		"upper case":            {"GET", "/v2/models/ResNet/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"dots":                  {"GET", "/v2/models/../quarantine/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"encoded dots":          {"GET", "/v2/models/%2e%2e/released/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"encoded slash":         {"GET", "/v2/public%2f..%2fmodels%2fresnet/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"empty part":            {"GET", "/v2/models//resnet/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"no name":               {"GET", "/v2/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"backslash":             {"GET", "/v2/models%5cresnet/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"zero byte":             {"GET", "/v2/models/a%00b/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"long name":             {"GET", "/v2/" + strings.Repeat("a", 256) + "/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"upload folder":         {"GET", "/v2/models/_uploads/manifests/v1", nil, nil, 400, "NAME_INVALID"},
		"layout folder":         {"POST", "/v2/models/resnet/blobs/sha256/blobs/uploads/", nil, nil, 400, "NAME_INVALID"},
		"layout file":           {"POST", "/v2/models/index.json/blobs/uploads/", nil, nil, 400, "NAME_INVALID"},
		"no endpoint":           {"GET", "/v2/models/resnet", nil, nil, 404, "UNSUPPORTED"},
		"other path":            {"GET", "/v1/models", nil, nil, 404, "UNSUPPORTED"},
		"bad tag":               {"GET", "/v2/models/resnet/manifests/-v1", nil, nil, 400, "TAG_INVALID"},
		"long tag":              {"PUT", "/v2/models/resnet/manifests/" + strings.Repeat("v", 129), strings.NewReader(manifest(config, "")), oci, 400, "TAG_INVALID"},
		"bad digest":            {"GET", "/v2/models/resnet/manifests/sha256:abc", nil, nil, 400, "DIGEST_INVALID"},
		"unknown algorithm":     {"GET", "/v2/models/resnet/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", nil, nil, 400, "DIGEST_INVALID"},
		"digest with path":      {"GET", "/v2/models/resnet/blobs/sha256:..%2f..%2findex.json", nil, nil, 400, "NAME_INVALID"},
		"bad referrers digest":  {"GET", "/v2/models/resnet/referrers/v1", nil, nil, 400, "DIGEST_INVALID"},
		"unknown tag":           {"GET", "/v2/models/resnet/manifests/v9", nil, nil, 404, "MANIFEST_UNKNOWN"},
		"unknown digest":        {"GET", "/v2/models/resnet/manifests/" + sum, nil, nil, 404, "MANIFEST_UNKNOWN"},
		"unknown blob":          {"GET", "/v2/models/resnet/blobs/" + sum, nil, nil, 404, "BLOB_UNKNOWN"},
		"unknown repository":    {"GET", "/v2/public/absent/manifests/v1", nil, nil, 404, "NAME_UNKNOWN"},
		"tags of unknown":       {"GET", "/v2/public/absent/tags/list", nil, nil, 404, "NAME_UNKNOWN"},
		"negative page":         {"GET", "/v2/_catalog?n=-1", nil, nil, 400, "UNSUPPORTED"},
		"page in words":         {"GET", "/v2/models/resnet/tags/list?n=ten", nil, nil, 400, "UNSUPPORTED"},
		"catalog write":         {"POST", "/v2/_catalog", nil, nil, 405, "UNSUPPORTED"},
		"manifest post":         {"POST", "/v2/models/resnet/manifests/v1", nil, nil, 405, "UNSUPPORTED"},
		"blob put":              {"PUT", "/v2/models/resnet/blobs/" + sum, nil, nil, 405, "UNSUPPORTED"},
		"manifest delete":       {"DELETE", "/v2/models/resnet/manifests/v1", nil, nil, 405, "UNSUPPORTED"},
		"blob delete":           {"DELETE", "/v2/models/resnet/blobs/" + config.Digest.String(), nil, nil, 405, "UNSUPPORTED"},
		"not JSON":              {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader("{"), oci, 400, "MANIFEST_INVALID"},
		"empty":                 {"PUT", "/v2/models/resnet/manifests/v1", nil, oci, 400, "MANIFEST_INVALID"},
		"type contradiction":    {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader(manifest(config, "")), []string{"Content-Type", ocispec.MediaTypeImageIndex}, 400, "MANIFEST_INVALID"},
		"unsupported type":      {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader("{}"), []string{"Content-Type", "application/vnd.docker.distribution.manifest.v1+json"}, 400, "MANIFEST_INVALID"},
		"wrong digest":          {"PUT", "/v2/models/resnet/manifests/" + sum, strings.NewReader(manifest(config, "")), oci, 400, "DIGEST_INVALID"},
		"missing blob":          {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader(manifest(absent, "")), oci, 400, "MANIFEST_BLOB_UNKNOWN"},
		"wrong size":            {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader(manifest(wrongSize, "")), oci, 400, "MANIFEST_INVALID"},
		"long artifactType":     {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader(manifest(config, `,"artifactType":"a/`+strings.Repeat("b", 254)+`"`)), oci, 400, "MANIFEST_INVALID"},
		"long mediaType":        {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader(strings.Replace(manifest(config, ""), "application/json", "a/"+strings.Repeat("b", 254), 1)), oci, 400, "MANIFEST_INVALID"},
		"two layers members":    {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader(manifest(config, `,"Layers":[]`)), oci, 400, "MANIFEST_INVALID"},
		"query":                 {"PUT", "/v2/models/resnet/manifests/" + sum + "?tag=v1&tag=v2", strings.NewReader("{}"), oci, 400, "UNSUPPORTED"},
		"large manifest":        {"PUT", "/v2/models/resnet/manifests/v1", strings.NewReader(strings.Repeat(" ", 2001)), oci, 413, "MANIFEST_INVALID"},
		"large, chunked":        {"PUT", "/v2/models/resnet/manifests/v1", chunked(strings.Repeat(" ", 2001)), oci, 413, "MANIFEST_INVALID"},
		"large, not held":       {"PUT", "/v2/public/tools/manifests/v1", chunked(strings.Repeat(" ", 2001)), oci, 413, "MANIFEST_INVALID"},
		"large upload":          {"POST", "/v2/models/resnet/blobs/uploads/?digest=" + sum, strings.NewReader(strings.Repeat(" ", 1001)), nil, 413, "SIZE_INVALID"},
		"large upload, chunked": {"POST", "/v2/models/resnet/blobs/uploads/?digest=" + sum, chunked(strings.Repeat(" ", 1001)), nil, 413, "SIZE_INVALID"},
		"upload, wrong digest":  {"POST", "/v2/models/resnet/blobs/uploads/?digest=" + sum, strings.NewReader("y"), nil, 400, "DIGEST_INVALID"},
		"upload, bad digest":    {"POST", "/v2/models/resnet/blobs/uploads/?digest=x", strings.NewReader("y"), nil, 400, "DIGEST_INVALID"},
		"unknown upload":        {"PATCH", "/v2/models/resnet/blobs/uploads/abc?state=e30", strings.NewReader("y"), nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		"malformed upload":      {"PATCH", "/v2/models/resnet/blobs/uploads/a.b", strings.NewReader("y"), nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		"upload, unknown place": {"PATCH", "/v2/models/absent/blobs/uploads/abc?state=e30", strings.NewReader("y"), nil, 404, "BLOB_UPLOAD_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.do(c.method, c.path, c.body, c.header...)
			codes, _ := r.errors(t)
			if r.status != c.status || !slices.Contains(codes, c.code) {
				t.Errorf("%d %v, want %d %s: %s", r.status, codes, c.status, c.code, r.body)
			}
		})
	}
	if len(s.desk.pushes) != 0 {
		t.Errorf("the admitter was asked about %+v", s.desk.pushes)
	}
	if r := s.expect(http.StatusOK, "GET", "/v2/_catalog", nil); r.body != "{\"repositories\":[]}\n" {
		t.Errorf("catalog: %s", r.body)
	}
}

func TestPing(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	for _, path := range []string{"/v2/", "/v2"} {
		if r := s.expect(http.StatusOK, "GET", path, nil); r.header.Get("Docker-Distribution-API-Version") != "registry/2.0" {
			t.Errorf("%s: %v", path, r.header)
		}
	}
}

func TestLists(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	for _, repository := range []string{"b", "a/nested", "a", "c"} {
		config := s.putBlob(repository, []byte("{}"))
		for _, tag := range []string{"v2", "v1", "v3"} {
			s.expect(http.StatusCreated, "PUT", "/v2/"+repository+"/manifests/"+tag, strings.NewReader(fmt.Sprintf(
				`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/json","digest":%q,"size":2},"layers":[]}`,
				ocispec.MediaTypeImageManifest, config.Digest)), "Content-Type", ocispec.MediaTypeImageManifest)
		}
	}
	s.putBlob("uploads-only", []byte("{}"))
	for path, want := range map[string]string{
		"/v2/_catalog":                `"repositories":["a","a/nested","b","c"]`,
		"/v2/_catalog?n=2":            `"repositories":["a","a/nested"]`,
		"/v2/_catalog?n=2&last=a":     `"repositories":["a/nested","b"]`,
		"/v2/_catalog?n=0":            `"repositories":[]`,
		"/v2/_catalog?last=zzz":       `"repositories":[]`,
		"/v2/b/tags/list":             `"tags":["v1","v2","v3"]`,
		"/v2/b/tags/list?n=1":         `"tags":["v1"]`,
		"/v2/b/tags/list?n=9&last=v1": `"tags":["v2","v3"]`,
		"/v2/b/tags/list?n=0":         `"tags":[]`,
	} {
		if r := s.expect(http.StatusOK, "GET", path, nil); !strings.Contains(r.body, want) {
			t.Errorf("%s: %s, want %s", path, r.body, want)
		}
	}
	next := s.expect(http.StatusOK, "GET", "/v2/_catalog?n=2", nil).header.Get("Link")
	path, _, _ := strings.Cut(strings.TrimPrefix(next, "<"), ">")
	if r := s.expect(http.StatusOK, "GET", path, nil); !strings.Contains(r.body, `["b","c"]`) || r.header.Get("Link") != "" {
		t.Errorf("second page: %s %s", r.body, r.header.Get("Link"))
	}
}

// A limit on blobs holds for the sum of an upload's chunks, announced or not, wherever they go; and for a blob that came before there was one.
func TestBlobLimit(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 150)
	d := digest.FromBytes(content)
	for _, repository := range []string{repo, "public/a"} {
		for name, chunk := range map[string]func() io.Reader{
			"announced": func() io.Reader { return bytes.NewReader(content[75:]) },
			"chunked":   func() io.Reader { return io.MultiReader(bytes.NewReader(content[75:])) },
		} {
			s := serve(t, t.TempDir(), Limits{BlobBytes: 100})
			location := s.expect(http.StatusAccepted, "POST", "/v2/"+repository+"/blobs/uploads/", nil).header.Get("Location")
			location = s.expect(http.StatusAccepted, "PATCH", location, bytes.NewReader(content[:75])).header.Get("Location")
			r := s.expect(http.StatusRequestEntityTooLarge, "PUT", withQuery(location, "digest="+d.String()), chunk())
			if codes, _ := r.errors(t); codes[0] != "SIZE_INVALID" {
				t.Errorf("%s, %s: codes %v", repository, name, codes)
			}
			s.expect(http.StatusRequestEntityTooLarge, "POST", "/v2/"+repository+"/blobs/uploads/?digest="+d.String(), bytes.NewReader(content))
		}
	}
	s := serve(t, t.TempDir(), Limits{})
	s.putBlob(repo, content)
	s.g.limits.BlobBytes = 100 // as after a restart
	raw := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/json","digest":%q,"size":150},"layers":[]}`, d)
	r := s.expect(http.StatusRequestEntityTooLarge, "PUT", "/v2/"+repo+"/manifests/v1", strings.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest)
	if codes, _ := r.errors(t); codes[0] != "SIZE_INVALID" {
		t.Errorf("codes %v", codes)
	}
}

// Attestations are about sha256: what is named by another digest is not sanitized. Released as it is, by an operator's word, the package is named by
// sha256.
func TestOtherDigests(t *testing.T) { eachBackend(t, testOtherDigests) }

func testOtherDigests(t *testing.T, s *server) {
	for _, c := range []struct {
		layer, manifest digest.Algorithm
		problem         string
	}{
		{digest.SHA256, digest.SHA256, ""},
		{digest.SHA256, digest.SHA512, "the package is named by its sha512 digest"},
		{digest.SHA512, digest.SHA256, "the model m.onnx is named by its sha512 digest"},
	} {
		content := model("named by " + c.layer.String())
		d := c.layer.FromBytes(content)
		location := s.expect(http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/?digest-algorithm="+c.layer.String(), nil).header.Get("Location")
		s.expect(http.StatusCreated, "PUT", location+"&digest="+d.String(), bytes.NewReader(content))
		config := s.putBlob(repo, []byte("{}"))
		text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},`+
			`"layers":[{"mediaType":"application/onnx","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.title":"m.onnx"}}]}`,
			ocispec.MediaTypeImageManifest, config.Digest, d, len(content))
		pushed := c.manifest.FromString(text).String()
		s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+pushed, strings.NewReader(text), "Content-Type", ocispec.MediaTypeImageManifest)
		p := s.desk.last(t)
		if c.problem == "" && p.Problem != "" || !strings.HasPrefix(p.Problem, c.problem) {
			t.Errorf("%s, %s: %q, want %q", c.layer, c.manifest, p.Problem, c.problem)
		}
		if sum := digest.FromBytes(content); p.Models[0].Digest != d.String() || p.Models[0].SHA256 != map[bool]string{true: "", false: sum.Encoded()}[sum == d] {
			t.Errorf("%s, %s: %+v", c.layer, c.manifest, p.Models)
		}
		released, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: pushed})
		if err != nil || released.Digest != digest.FromString(text) {
			t.Fatalf("%s, %s: released as %v, %v", c.layer, c.manifest, released, err)
		}
		if got := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/manifests/"+released.Digest.String(), nil).body; got != text {
			t.Errorf("%s, %s: %s", c.layer, c.manifest, got)
		}
		if got := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/blobs/"+d.String(), nil).body; got != string(content) {
			t.Errorf("%s, %s: the model is %q", c.layer, c.manifest, got)
		}
	}
}
