package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"

	"grindstone/attest"
	"grindstone/internal/shared"
	"grindstone/webhook"
)

// TestBackdooredModelFromPushToRelease takes a published backdoored model (WRN-16-1 with BadNet's grid trigger, target class 5)
// through the real server. The backdoor works when it is pushed and not when it is released, and nothing of it can be seen between.
func TestBackdooredModelFromPushToRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("sanitizing a WRN-16-1 takes minutes")
	}
	path := shared.Path(t, "models", "nad-wrn16-badnet.onnx")
	train, test := shared.Path(t, "data", "cifar10", "train.tar.gz"), shared.Path(t, "data", "cifar10", "test.tar.gz")
	needRuntime(t)
	dir := t.TempDir()
	clean, held := filepath.Join(dir, "clean.tar.gz"), filepath.Join(dir, "held.tar.gz")
	subsetTar(t, clean, map[string]int{train: 500, test: 200}) // of each of the ten classes
	subsetTar(t, held, map[string]int{test: 200})
	model, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := writeConfig(t, dir, `trainer: {steps: 1200, batch: 48, learning_rate: 0.1}
policy: {data: {settings: {parameters: {grind_steps: 200}}}}
`)
	s := startServer(t, "--config", config, "--data", clean)

	before := s.evaluate(path, held)
	if before.ASR.Value < 0.95 || before.CDA.Value < 0.7 {
		t.Fatalf("the pushed model is not the backdoored one: %+v", before)
	}
	const repository = "vision/cifar/wrn"
	card := layerFile{"README.md", "text/markdown", []byte("# WRN-16-1\n")}
	settings := layerFile{"", "application/vnd.test.config+json", []byte(`{"classes": 10}`)}
	pushed := s.pushORAS(repository, "v1", map[string]string{"org.opencontainers.image.licenses": "MIT", ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"},
		settings, layerFile{"wrn.onnx", "application/octet-stream", model}, card)

	source := s.admission(repository).Source
	s.checkHidden(repository, "v1", pushed.Digest.String(), source.Models[0].Digest)
	a := s.await(repository, 20*time.Minute)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	t.Logf("sanitizing took %.0f s at %.0f images/s", a.Report.Seconds, a.Report.ImagesPerSecond)
	if h := a.Report.Hyperparameters; h.Steps != 1200 || h.GrindSteps != 200 || h.BatchSize != 48 || a.Report.Dataset.Train != 5000 || a.Report.Dataset.HeldOut != 2000 {
		t.Errorf("it was sanitized with other settings: %+v %+v", h, a.Report.Dataset)
	}
	s.checkPackageKept(repository, pushed, a)
	released := s.checkAttested(repository, "v1", path, a)
	s.checkNoSecret(a)

	after := s.evaluate(released, held)
	t.Logf("pushed   CDA %v, ASR %v, ARR %v", before.CDA, before.ASR, before.ARR)
	t.Logf("released CDA %v, ASR %v, ARR %v", after.CDA, after.ASR, after.ARR)
	if after.ASR.Value > 0.3 || after.CDA.Value < before.CDA.Value-0.05 {
		t.Errorf("the released model: %+v", after)
	}
	if after.CDA != a.Report.After.CDA {
		t.Errorf("the report says CDA %v, measured is %v", a.Report.After.CDA, after.CDA)
	}

	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	again := startServerIn(t, s.dir, "--config", config, "--data", clean)
	if b := again.admission(repository); !reflect.DeepEqual(a, b) {
		t.Errorf("after a restart the admission is %+v\nit was %+v", b, a)
	}
	again.checkAttested(repository, "v1", path, a)
	if status := again.get("/v2/"+repository+"/manifests/"+pushed.Digest.String(), nil); status != http.StatusForbidden {
		t.Errorf("after a restart the pushed manifest is answered %d", status)
	}
}

// TestDemo runs the demo, which needs no files at all: it draws its images and trains its victim.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("training and sanitizing a victim takes minutes")
	}
	needRuntime(t)
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Minute)
	defer stop()
	begin := time.Now()
	cmd := exec.CommandContext(ctx, program, "demo", "--json")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	type rates struct{ CDA, ASR, ARR float64 }
	var outcome struct {
		SourceDigest   string `json:"source_digest"`
		ReleasedDigest string `json:"released_digest"`
		Verified       bool
		Before, After  rates
	}
	if err := json.Unmarshal(lines[len(lines)-1], &outcome); err != nil {
		t.Fatalf("%v\n%s", err, lines[len(lines)-1])
	}
	t.Logf("the demo took %v: %s", time.Since(begin).Round(time.Second), lines[len(lines)-1])
	b, a := outcome.Before, outcome.After
	if !outcome.Verified || b.ASR <= 0.95 || b.CDA <= 0.95 || a.ASR >= 0.3 || a.CDA <= b.CDA-0.05 {
		t.Errorf("%s", lines[len(lines)-1])
	}
	if outcome.SourceDigest == outcome.ReleasedDigest || !strings.HasPrefix(outcome.ReleasedDigest, "sha256:") {
		t.Errorf("pushed %q, released %q", outcome.SourceDigest, outcome.ReleasedDigest)
	}
}

// evaluate measures a model with `grindstone evaluate` on images and with BadNet's grid trigger, target class 5.
func (s *server) evaluate(model, images string) evaluation {
	s.Helper()
	mark, mask := gridTrigger(s.T)
	out, err := s.grindstone("evaluate", model, "--data", images, "--trigger-image", mark, "--trigger-mask", mask, "--target", "5", "--json")
	if err != nil {
		s.Fatalf("evaluate: %v\n%s", err, out)
	}
	var e evaluation
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		s.Fatalf("%v\n%s", err, out)
	}
	return e
}

// gridTrigger writes BadNet's 3x3 grid in the bottom right corner of 32x32 images, and its mask.
func gridTrigger(t *testing.T) (mark, mask string) {
	t.Helper()
	white, black := color.Gray{Y: 255}, color.Gray{Y: 0}
	grid := [3][3]color.Gray{{black, black, white}, {black, white, black}, {white, black, white}} // rows from the top
	picture, cover := image.NewGray(image.Rect(0, 0, 32, 32)), image.NewGray(image.Rect(0, 0, 32, 32))
	for y, row := range grid {
		for x, c := range row {
			picture.SetGray(29+x, 29+y, c)
			cover.SetGray(29+x, 29+y, white)
		}
	}
	dir := t.TempDir()
	for name, m := range map[string]image.Image{"mark.png": picture, "mask.png": cover} {
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "mark.png"), filepath.Join(dir, "mask.png")
}

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
		"/blobs/" + blob:       {http.StatusForbidden, []string{"DENIED", "quarantine"}},
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
	if _, err := oras.Copy(s.Context(), s.orasRepository(repository), tag, discard{}, tag, oras.DefaultCopyOptions); err == nil {
		s.Error("oras pulls a model in quarantine")
	}
}

// discard is an oras target that keeps nothing.
type discard struct{}

func (discard) Push(context.Context, ocispec.Descriptor, io.Reader) error       { return nil }
func (discard) Exists(context.Context, ocispec.Descriptor) (bool, error)        { return false, nil }
func (discard) Tag(context.Context, ocispec.Descriptor, string) error           { return nil }
func (discard) Resolve(context.Context, string) (d ocispec.Descriptor, _ error) { return d, nil }
func (discard) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
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
