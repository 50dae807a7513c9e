package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/attest"
)

// attach pushes an artifact that refers to a package by its digest, and returns its digest.
func (s *serverProcess) attach(repository string, subject ocispec.Descriptor, text string) string {
	s.Helper()
	layer, config := s.upload(repository, digest.SHA256, []byte(text)), s.upload(repository, digest.SHA256, []byte("{}"))
	config.MediaType = ocispec.MediaTypeEmptyJSON
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.sbom", Config: config,
		Layers: []ocispec.Descriptor{layer}, Subject: &subject,
	})
	if err != nil {
		s.Fatal(err)
	}
	d := digest.FromBytes(raw).String()
	answer, body := s.send("PUT", "/v2/"+repository+"/manifests/"+d, ocispec.MediaTypeImageManifest, raw)
	if answer.StatusCode != http.StatusCreated || answer.Header.Get("OCI-Subject") != subject.Digest.String() {
		s.Fatalf("%s %v: %s", answer.Status, answer.Header, body)
	}
	return d
}

// TestReferrersOfAPushedPackage: what is attached to a package in quarantine stays there with it, is not to be seen, and is listed in the attestation
// of what is released, sanitized or approved.
func TestReferrersOfAPushedPackage(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "named", "-workers", "2")
	check := func(repository string, a Admission, referrers []attest.Referrer, attached []string) {
		t.Helper()
		var got []string
		for _, r := range referrers {
			got = append(got, "sha256:"+r.Digest.SHA256)
			if r.MediaType != ocispec.MediaTypeImageManifest || r.ArtifactType != "application/vnd.example.sbom" {
				t.Errorf("%s: %+v", repository, r)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(attached) {
			t.Errorf("%s: the attestation lists %q, attached are %q", repository, got, attached)
		}
		for _, d := range attached {
			r := s.admissions("?digest=" + url.QueryEscape(d))[0]
			if r.State != Held || !strings.Contains(r.Message, a.Source.Digest) {
				t.Errorf("%s: the referrer is %s: %s", repository, r.State, r.Message)
			}
			if answer, _ := s.send("GET", "/v2/"+repository+"/manifests/"+d, "", nil); answer.StatusCode != http.StatusForbidden {
				t.Errorf("%s: the referrer is answered %s", repository, answer.Status)
			}
		}
		if _, body := s.send("GET", "/v2/"+repository+"/referrers/"+a.Source.Digest, "", nil); strings.Contains(body, "sha256:") {
			t.Errorf("%s: the referrers of the pushed package are to be seen: %s", repository, body)
		}
	}

	pushed := s.pushModel("models/a", "v1", "a sanitizer:slow-2s;")
	s.pushModel("models/b", "v1", "a sanitizer:slow-2s;") // the same package elsewhere
	attached := []string{s.attach("models/a", pushed, "one"), s.attach("models/a", pushed, "two")}
	s.attach("models/b", pushed, "of another repository")
	a := s.become(pushed.Digest.String(), Released)
	s.settle()
	for _, of := range s.admissions("?repository=models/a&digest=" + url.QueryEscape(pushed.Digest.String())) {
		a = of
	}
	result, err := attest.VerifyRef(t.Context(), s.address+"/models/a:v1", s.public(), attest.RefOptions{Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	check("models/a", a, result.Statement.Predicate.Source.Referrers, attached)

	pushed = s.pushModel("models/c", "v1", "c sanitizer:at-chance;")
	held := s.become(pushed.Digest.String(), Held)
	attached = []string{s.attach("models/c", pushed, "three")}
	if status, text := s.post("/api/v1/admissions/"+held.ID+"/approve", `{"reason": "known"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	s.become(pushed.Digest.String(), Released)
	s.settle()
	result, _ = attest.VerifyRef(t.Context(), s.address+"/models/c:v1", s.public(), attest.RefOptions{Anonymous: true})
	if err := result.AcceptApproved(); err != nil {
		t.Fatal(err)
	}
	if got := result.Statement.Approval.Source.Referrers; len(got) != 1 || "sha256:"+got[0].Digest.SHA256 != attached[0] {
		t.Errorf("the approval lists %+v, attached is %s", got, attached)
	}
}
