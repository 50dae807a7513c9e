package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"

	"grindstone/attest"
	"grindstone/webhook"
)

// checkHidden asks for everything that was pushed: none of it is answered, and the answers name the admission.
func (s *server) checkHidden(repository, tag, digest, blob string) {
	s.Helper()
	a := s.admission(repository)
	for path, want := range map[string]struct {
		status int
		words  []string
	}{
		"/manifests/" + tag:    {http.StatusNotFound, []string{"MANIFEST_UNKNOWN", a.ID}},
		"/manifests/" + digest: {http.StatusForbidden, []string{"DENIED", a.ID}},
		"/blobs/" + blob:       {http.StatusForbidden, []string{"DENIED", a.ID}},
	} {
		var answer string
		if status := s.get("/v2/"+repository+path, &answer); status != want.status {
			s.Errorf("%s is answered %d: %s", path, status, answer)
		}
		for _, word := range want.words {
			if !strings.Contains(answer, word) {
				s.Errorf("%s: the answer lacks %q: %s", path, word, answer)
			}
		}
	}
	if tags, err := crane.ListTags(s.address+"/"+repository, crane.Insecure); err == nil && len(tags) > 0 {
		s.Errorf("tags are listed: %q", tags)
	}
	if _, err := oras.Copy(s.Context(), s.orasRepository(repository), tag, memory.New(), tag, oras.DefaultCopyOptions); err == nil {
		s.Error("oras pulls a model in quarantine")
	}
}

// checkPackageKept compares the released manifest with the pushed one: nothing but the model's digest differs.
func (s *server) checkPackageKept(repository string, pushed ocispec.Descriptor, a webhook.Admission) {
	s.Helper()
	if a.Released.Digest == pushed.Digest.String() {
		s.Error("what was released is what was pushed")
	}
	reference := s.address + "/" + repository + ":v1"
	if d, err := crane.Digest(reference, crane.Insecure); err != nil || d != a.Released.Digest {
		s.Errorf("the tag answers %s, %v; released is %s", d, err, a.Released.Digest)
	}
	text, err := crane.Manifest(reference, crane.Insecure)
	if err != nil {
		s.Fatal(err)
	}
	was, err := os.ReadFile(filepath.Join(s.dir, "registry", "quarantine", repository, "blobs", "sha256", pushed.Digest.Encoded()))
	if err != nil {
		s.Fatal(err)
	}
	model := "sha256:" + a.Report.Sanitized.SHA256
	if !bytes.Equal(bytes.ReplaceAll(text, []byte(model), []byte(a.Source.Models[0].Digest)), was) {
		s.Errorf("more than the model's digest changed:\n%s\nwas\n%s", text, was)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		s.Fatal(err)
	}
	for _, d := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		if content := s.pullBlob(repository, d.Digest.String()); int64(len(content)) != d.Size {
			s.Errorf("%s has %d bytes, not %d", d.Digest, len(content), d.Size)
		}
	}
	if status := s.get("/v2/"+repository+"/blobs/"+a.Source.Models[0].Digest, nil); status != http.StatusForbidden {
		s.Errorf("the pushed model's blob is answered %d after the release", status)
	}
}

// pullBlob downloads a blob with go-containerregistry, which checks its digest.
func (s *server) pullBlob(repository, digest string) []byte {
	s.Helper()
	layer, err := crane.PullLayer(s.address+"/"+repository+"@"+digest, crane.Insecure)
	if err != nil {
		s.Fatal(err)
	}
	r, err := layer.Compressed()
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		s.Fatalf("%s: %v", digest, err)
	}
	return content
}

// checkAttested verifies the tag, the attestation's two forms, and the bare file with its bundle. It returns the pulled file's path.
func (s *server) checkAttested(repository, tag, sourceModel string, a webhook.Admission) string {
	s.Helper()
	key := filepath.Join(s.dir, "keys", "grindstone.pub")
	reference := s.address + "/" + repository + ":" + tag
	out, err := s.grindstone("verify", reference, "--key", key)
	if err != nil || !strings.Contains(out, "verified: "+reference) || !strings.Contains(out, a.Released.Digest) {
		s.Errorf("verify %s: %v\n%s", reference, err, out)
	}

	repo, referrers := s.orasRepository(repository), []ocispec.Descriptor(nil)
	subject, err := repo.Resolve(s.Context(), tag)
	if err != nil {
		s.Fatal(err)
	}
	if err := repo.Referrers(s.Context(), subject, attest.BundleMediaType, func(page []ocispec.Descriptor) error {
		referrers = append(referrers, page...)
		return nil
	}); err != nil || len(referrers) != 1 || referrers[0].Digest.String() != a.Released.Attestation {
		s.Fatalf("referrers %+v, %v; want %s", referrers, err, a.Released.Attestation)
	}
	if _, err := crane.Manifest(s.address+"/"+repository+":"+strings.Replace(a.Released.Digest, ":", "-", 1)+".att", crane.Insecure); err != nil {
		s.Errorf("the legacy tag: %v", err)
	}
	text, err := crane.Manifest(s.address+"/"+repository+"@"+a.Released.Attestation, crane.Insecure)
	if err != nil {
		s.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		s.Fatal(err)
	}
	dir := s.TempDir()
	file, bundle := filepath.Join(dir, "wrn.onnx"), filepath.Join(dir, "bundle.json")
	for path, digest := range map[string]string{file: "sha256:" + a.Report.Sanitized.SHA256, bundle: manifest.Layers[0].Digest.String()} {
		if err := os.WriteFile(path, s.pullBlob(repository, digest), 0o600); err != nil {
			s.Fatal(err)
		}
	}
	if out, err := s.grindstone("verify", file, "--bundle", bundle, "--key", key); err != nil || !strings.Contains(out, "verified: "+file) {
		s.Errorf("verify the file: %v\n%s", err, out)
	}
	if out, err := s.grindstone("verify", sourceModel, "--bundle", bundle, "--key", key); err == nil || !strings.Contains(out, "NOT VERIFIED") {
		s.Errorf("the pushed model verifies with the released one's bundle: %s", out)
	}
	return file
}

// checkNoSecret looks at everything that is left of the run: the admission's record, what is signed, and the files of the server.
// A transformation of features is a list of numbers, or a blob of them; there is none.
func (s *server) checkNoSecret(a webhook.Admission) {
	s.Helper()
	var record string
	s.get("/api/v1/admissions/"+a.ID, &record)
	texts := map[string][]byte{"the admission": []byte(record)}
	known := map[string]bool{ // content of the quarantined and the released packages
		a.Source.Digest: true, a.Source.Models[0].Digest: true, a.Released.Digest: true, "sha256:" + a.Report.Sanitized.SHA256: true,
	}
	var files []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(s.dir, path)
		files = append(files, name)
		switch {
		case err != nil:
		case name == filepath.Join("keys", "grindstone.key"), name == filepath.Join("keys", "grindstone.pub"):
		case strings.HasPrefix(name, "state"), strings.HasPrefix(name, "registry") && !known["sha256:"+filepath.Base(name)]:
			texts[name], err = os.ReadFile(path)
		case strings.HasPrefix(name, "registry"):
		default:
			s.Errorf("the server left %s", name)
		}
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	s.Logf("the server keeps\n  %s", strings.Join(files, "\n  "))
	signed := 0
	for name, text := range texts {
		if len(text) > 64<<10 {
			s.Errorf("%s has %d bytes", name, len(text))
		}
		if json.Valid(text) {
			var value any
			if err := json.Unmarshal(text, &value); err != nil {
				s.Fatal(err)
			}
			for _, found := range s.numbersIn(value, &signed) {
				s.Errorf("%s holds %s", name, found)
			}
		}
	}
	if signed != 2 {
		s.Errorf("%d signed statements were looked at, not the bundle's and the envelope's", signed)
	}
}

// numbersIn describes every list of numbers and every long text in a JSON value. Statements that are signed are opened and counted.
func (s *server) numbersIn(value any, signed *int) (found []string) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if text, ok := member.(string); ok && name == "payload" {
				payload, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					s.Fatal(err)
				}
				*signed++
				if err := json.Unmarshal(payload, &member); err != nil {
					s.Fatal(err)
				}
			}
			found = append(found, s.numbersIn(member, signed)...)
		}
	case []any:
		for _, member := range v {
			if _, ok := member.(float64); ok {
				return append(found, fmt.Sprintf("a list of %d numbers", len(v)))
			}
			found = append(found, s.numbersIn(member, signed)...)
		}
	case string:
		if len(v) > 300 {
			found = append(found, fmt.Sprintf("a text of %d characters", len(v)))
		}
	}
	return found
}
