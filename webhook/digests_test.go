package webhook

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/attest"
)

// send makes a request to the registry and returns the answer, whose body has been read.
func (s *serverProcess) send(method, target, mediaType string, body []byte) (*http.Response, string) {
	s.Helper()
	if !strings.HasPrefix(target, "http") {
		target = "http://" + s.address + target
	}
	r, err := http.NewRequestWithContext(s.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Content-Type", mediaType)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	return answer, string(text)
}

// upload sends a blob under its digest of an algorithm.
func (s *serverProcess) upload(repository string, algorithm digest.Algorithm, content []byte) ocispec.Descriptor {
	s.Helper()
	d := algorithm.FromBytes(content)
	begun, text := s.send("POST", "/v2/"+repository+"/blobs/uploads/?digest-algorithm="+algorithm.String(), "", nil)
	location, err := begun.Location()
	if err != nil {
		s.Fatalf("%v: %s", err, text)
	}
	query := location.Query()
	query.Set("digest", d.String())
	location.RawQuery = query.Encode()
	if answer, text := s.send("PUT", location.String(), "application/octet-stream", content); answer.StatusCode != http.StatusCreated {
		s.Fatalf("%s: %s", answer.Status, text)
	}
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(content))}
}

// TestApproveWhatSHA512Names: a package, and a model in one, that are named by their sha512 digests cannot be sanitized, and can be approved: what is
// released and attested is named by sha256.
func TestApproveWhatSHA512Names(t *testing.T) {
	s := startServer(t, t.TempDir())
	for name, c := range map[string]struct{ layer, manifest digest.Algorithm }{
		"package": {digest.SHA256, digest.SHA512}, "model": {digest.SHA512, digest.SHA256}, "both": {digest.SHA512, digest.SHA512},
	} {
		repository, model := "models/"+name, testModel(name)
		layer := s.upload(repository, c.layer, model)
		layer.Annotations = map[string]string{ocispec.AnnotationTitle: "model.onnx"}
		config := s.upload(repository, digest.SHA256, []byte("{}"))
		raw, err := json.Marshal(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
		})
		if err != nil {
			t.Fatal(err)
		}
		pushed := c.manifest.FromBytes(raw)
		if answer, text := s.send("PUT", "/v2/"+repository+"/manifests/"+pushed.String(), ocispec.MediaTypeImageManifest, raw); answer.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %s %s", name, answer.Status, text)
		}
		s.settle()
		held := s.admissions("?digest=" + url.QueryEscape(pushed.String()))[0]
		if held.State != Held || held.Reason != ReasonNoModel || !strings.Contains(held.Message, "sha512") {
			t.Errorf("%s: %s %s %s", name, held.State, held.Reason, held.Message)
		}
		if status, text := s.post("/api/v1/admissions/"+held.ID+"/approve", `{"reason": "known"}`); status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, status, text)
		}
		s.settle()
		a := s.admission(held.ID)
		if a.State != Released || a.Released.Digest != digest.FromBytes(raw).String() {
			t.Fatalf("%s: %s %s %s, %+v", name, a.State, a.Reason, a.Message, a.Released)
		}
		if at, got, err := s.pull(repository, a.Released.Digest); err != nil || at != a.Released.Digest || !bytes.Equal(got, model) {
			t.Errorf("%s: pulled %s %q, %v", name, at, got, err)
		}
		if c.manifest == digest.SHA512 {
			if answer, text := s.send("GET", "/v2/"+repository+"/manifests/"+pushed.String(), "", nil); answer.StatusCode != http.StatusForbidden || !strings.Contains(text, "it is released as "+a.Released.Digest) {
				t.Errorf("%s: the pushed digest is answered %s %s", name, answer.Status, text)
			}
		}
		result, _ := attest.VerifyRef(t.Context(), s.address+"/"+repository+"@"+a.Released.Digest, s.public(), attest.RefOptions{Anonymous: true})
		if err := result.AcceptApproved(); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got, want := result.Statement.Subject[1], digest.FromBytes(model).Encoded(); got.Name != "model.onnx" || got.Digest.SHA256 != want {
			t.Errorf("%s: the attestation is about %+v, want %s", name, got, want)
		}
	}
}
