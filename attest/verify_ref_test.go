package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
)

// testRegistry is a registry on loopback with one model in it.
type testRegistry struct {
	host    string
	repo    *remote.Repository
	subject ocispec.Descriptor
	server  *olareg.Server
}

const onnxType = "application/vnd.grindstone.onnx.layer.v1"

func newRegistry(t testing.TB, referrers bool) *testRegistry {
	t.Helper()
	server := olareg.New(olaregconfig.Config{
		Storage: olaregconfig.ConfigStorage{StoreType: olaregconfig.StoreMem},
		API:     olaregconfig.ConfigAPI{Referrer: olaregconfig.ConfigAPIReferrer{Enabled: &referrers}},
		Log:     slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { _ = server.Close() })
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	host := strings.TrimPrefix(listener.URL, "http://")
	repo, err := remote.NewRepository(host + "/models/signs")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	reg := &testRegistry{host: host, repo: repo, server: server}
	reg.subject = reg.pushModel(t, "v1", layer{"model.onnx", onnxType, "model"})
	return reg
}

type layer struct{ title, mediaType, content string }

// pushModel pushes a package and tags it.
func (reg *testRegistry) pushModel(t testing.TB, tag string, layers ...layer) ocispec.Descriptor {
	t.Helper()
	return reg.pushModelAs(t, tag, nil, layers...)
}

// pushModelAs is pushModel with annotations of each layer, beside the title.
func (reg *testRegistry) pushModelAs(t testing.TB, tag string, annotations map[string]string, layers ...layer) ocispec.Descriptor {
	t.Helper()
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.grindstone.model.v1", Config: ocispec.DescriptorEmptyJSON}
	reg.pushBlob(t, "{}")
	for _, l := range layers {
		reg.pushBlob(t, l.content)
		d := ocispec.Descriptor{MediaType: l.mediaType, Digest: digest.FromString(l.content), Size: int64(len(l.content)),
			Annotations: map[string]string{ocispec.AnnotationTitle: l.title}}
		maps.Copy(d.Annotations, annotations)
		manifest.Layers = append(manifest.Layers, d)
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return reg.pushManifest(t, manifest.MediaType, text, tag)
}

func (reg *testRegistry) pushBlob(t testing.TB, content string) {
	t.Helper()
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString(content), Size: int64(len(content))}
	if err := reg.repo.Blobs().Push(context.Background(), d, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func (reg *testRegistry) pushManifest(t testing.TB, mediaType string, text []byte, tag string) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if tag == "" {
		tag = d.Digest.String()
	}
	if err := reg.repo.PushReference(context.Background(), d, bytes.NewReader(text), tag); err != nil {
		t.Fatal(err)
	}
	return d
}

// attach pushes an artifact as its fields say.
func (reg *testRegistry) attach(t testing.TB, a Artifact) ocispec.Descriptor {
	t.Helper()
	for _, blob := range a.Blobs {
		reg.pushBlob(t, string(blob))
	}
	return reg.pushManifest(t, a.MediaType, a.Manifest, a.Tag)
}

// attest signs the registry's model and packs the attestation.
func (reg *testRegistry) attest(t testing.TB, k *Key, change func(*Predicate), files ...Subject) (referrer, legacy Artifact) {
	t.Helper()
	p := predicate()
	if change != nil {
		change(&p)
	}
	if files == nil {
		files = []Subject{{"model.onnx", sha("model")}}
	}
	a, err := Sign(context.Background(), k, append([]Subject{{"models/signs", reg.subject.Digest.Encoded()}}, files...), p)
	if err != nil {
		t.Fatal(err)
	}
	referrer, legacy, err = a.Artifacts(reg.subject)
	if err != nil {
		t.Fatal(err)
	}
	return referrer, legacy
}

func (reg *testRegistry) verify(t testing.TB, k *Key, reference string) (*Result, error) {
	t.Helper()
	return VerifyRef(t.Context(), reg.host+"/models/signs"+reference, k.Public(), RefOptions{Anonymous: true})
}

func TestVerifyRefByReferrer(t *testing.T) {
	for name, api := range map[string]bool{"referrers API": true, "fallback tag": false} {
		t.Run(name, func(t *testing.T) {
			reg, k := newRegistry(t, api), newKey(t)
			referrer, _ := reg.attest(t, k, nil)
			d := reg.attach(t, referrer) // without the API, oras writes the fallback tag
			r, err := reg.verify(t, k, ":v1")
			if err != nil || r.Digest != reg.subject.Digest.String() || r.Source != "referrer "+d.Digest.String() {
				t.Fatalf("%+v, %v", r, err)
			}
			var names []string
			for _, c := range r.Checks {
				names = append(names, c.Name)
			}
			want := []string{CheckFormat, CheckSignature, CheckStatement, CheckPredicateType, CheckPredicate, CheckManifest, CheckModel, CheckDecision, CheckClaims}
			if strings.Join(names, ",") != strings.Join(want, ",") {
				t.Errorf("checks %q, want %q", names, want)
			}
			if _, err := reg.verify(t, k, "@"+reg.subject.Digest.String()); err != nil {
				t.Errorf("by digest: %v", err)
			}
			if _, err := VerifyRef(t.Context(), "oci://"+reg.host+"/models/signs:v1", k.Public(), RefOptions{Anonymous: true}); err != nil {
				t.Errorf("with scheme: %v", err)
			}
		})
	}
}

func TestVerifyRefByLegacyTag(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	_, legacy := reg.attest(t, k, nil)
	if want := "sha256-" + reg.subject.Digest.Encoded() + ".att"; legacy.Tag != want {
		t.Fatalf("tag %q, want %q", legacy.Tag, want)
	}
	reg.attach(t, legacy)
	r, err := reg.verify(t, k, ":v1")
	if err != nil || r.Source != "tag "+legacy.Tag {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := reg.verify(t, newKey(t), ":v1"); !errors.Is(err, ErrVerification) {
		t.Errorf("another key: %v, want ErrVerification", err)
	}
}

func TestVerifyRefRefuses(t *testing.T) {
	k := newKey(t)
	for name, c := range map[string]struct {
		prepare func(*testing.T, *testRegistry)
		check   string
	}{
		"no attestation": {func(*testing.T, *testRegistry) {}, CheckFound},
		"another key": {func(t *testing.T, reg *testRegistry) {
			referrer, _ := reg.attest(t, newKey(t), nil)
			reg.attach(t, referrer)
		}, CheckSignature},
		"another manifest under the tag": {func(t *testing.T, reg *testRegistry) {
			referrer, _ := reg.attest(t, k, nil)
			reg.attach(t, referrer)
			reg.subject = reg.pushModel(t, "v1", layer{"model.onnx", onnxType, "other model"})
		}, CheckFound},
		"attestation moved to another manifest": {func(t *testing.T, reg *testRegistry) {
			referrer, _ := reg.attest(t, k, nil)
			evil := reg.pushModel(t, "v1", layer{"model.onnx", onnxType, "model"}, layer{"README.md", "text/markdown", "other"})
			referrer.Manifest = bytes.ReplaceAll(referrer.Manifest, []byte(reg.subject.Digest), []byte(evil.Digest))
			reg.attach(t, referrer)
		}, CheckManifest},
		"legacy tag moved to another manifest": {func(t *testing.T, reg *testRegistry) {
			_, legacy := reg.attest(t, k, nil)
			evil := reg.pushModel(t, "v1", layer{"model.onnx", onnxType, "other model"})
			legacy.Tag = legacyTag(evil.Digest)
			reg.attach(t, legacy)
		}, CheckManifest},
		"second model not attested": {func(t *testing.T, reg *testRegistry) {
			reg.subject = reg.pushModel(t, "v1", layer{"model.onnx", onnxType, "model"}, layer{"second.onnx", "application/octet-stream", "second"})
			referrer, _ := reg.attest(t, k, nil)
			reg.attach(t, referrer)
		}, CheckModel},
		"failed claim": {func(t *testing.T, reg *testRegistry) {
			referrer, _ := reg.attest(t, k, func(p *Predicate) { p.Metrics.Claims[0].Passed = false })
			reg.attach(t, referrer)
		}, CheckClaims},
		"unreadable bundle": {func(t *testing.T, reg *testRegistry) {
			reg.attach(t, broken(t, reg))
		}, CheckFormat},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newRegistry(t, true)
			c.prepare(t, reg)
			r, err := reg.verify(t, k, ":v1")
			if !errors.Is(err, ErrVerification) || r == nil || r.OK() {
				t.Fatalf("%+v, %v; want ErrVerification", r, err)
			}
			var failed []string
			for _, check := range r.Checks {
				if !check.Passed {
					failed = append(failed, check.Name)
				}
			}
			if !strings.Contains(strings.Join(failed, ","), c.check) {
				t.Errorf("failed checks %q, want %q among them", failed, c.check)
			}
		})
	}
}

// broken is a referrer whose bundle is none.
func broken(t testing.TB, reg *testRegistry) Artifact {
	t.Helper()
	a := Attestation{Bundle: []byte("{}"), Envelope: signed(t, newKey(t), nil).Envelope}
	referrer, err := a.referrer(reg.subject, PredicateType, predicate().FinishedAt)
	if err != nil {
		t.Fatal(err)
	}
	return referrer
}

func TestVerifyRefFindsTheGoodAttestation(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	reg.attach(t, broken(t, reg))
	stranger, _ := reg.attest(t, newKey(t), nil)
	reg.attach(t, stranger)
	sbom := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/spdx+json",
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON}, Subject: &reg.subject}
	text, err := json.Marshal(sbom)
	if err != nil {
		t.Fatal(err)
	}
	reg.pushManifest(t, sbom.MediaType, text, "")
	good, _ := reg.attest(t, k, nil)
	d := reg.attach(t, good)
	if r, err := reg.verify(t, k, ":v1"); err != nil || r.Source != "referrer "+d.Digest.String() {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestVerifyRefFindsTheApproval: what else is attached to an approved model, though it fails one check only, does not hide the approval.
func TestVerifyRefFindsTheApproval(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	subject := reg.subject
	a, err := SignApproval(t.Context(), k, []Subject{{"models/signs", subject.Digest.Encoded()}, {"model.onnx", sha("model")}}, approval())
	if err != nil {
		t.Fatal(err)
	}
	approved, _, err := a.Artifacts(subject)
	if err != nil {
		t.Fatal(err)
	}
	reg.subject = reg.pushModel(t, "other", layer{"model.onnx", onnxType, "model"}, layer{"README.md", "text/markdown", "other"})
	for n := range 9 { // registries list them in any order
		another, _ := reg.attest(t, k, func(p *Predicate) { p.Decision.ID = fmt.Sprint(n) })
		another.Manifest = bytes.ReplaceAll(another.Manifest, []byte(reg.subject.Digest), []byte(subject.Digest))
		reg.attach(t, another)
	}
	reg.attach(t, approved)
	r, err := reg.verify(t, k, ":v1")
	if !errors.Is(err, ErrVerification) || r.Statement == nil || r.Statement.Approval == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := r.AcceptApproved(); err != nil {
		t.Errorf("the approval is not accepted: %v", err)
	}
}

// TestVerifyRefUnderAFloodOfReferrers: whoever may push can attach as many as he likes, and hides nothing by that.
func TestVerifyRefUnderAFloodOfReferrers(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	flood := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: BundleMediaType,
		Config: ocispec.DescriptorEmptyJSON, Subject: &reg.subject}
	for range maxCandidates + 1 {
		flood.Layers = append(flood.Layers, ocispec.Descriptor{MediaType: BundleMediaType, Digest: digest.FromString("{}"), Size: 2})
	}
	text, err := json.Marshal(flood)
	if err != nil {
		t.Fatal(err)
	}
	reg.pushManifest(t, flood.MediaType, text, "")
	if r, err := reg.verify(t, k, ":v1"); !errors.Is(err, errTooMany) || r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
	_, legacy := reg.attest(t, k, nil)
	reg.attach(t, legacy)
	if r, err := reg.verify(t, k, ":v1"); err != nil || r.Source != "tag "+legacy.Tag {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestVerifyRefOfAListWithoutEnd: a registry's list of referrers may go on for ever.
func TestVerifyRefOfAListWithoutEnd(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	pages := 0
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			reg.server.ServeHTTP(w, r)
			return
		}
		pages++
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Link", fmt.Sprintf("<%s?page=%d>; rel=\"next\"", r.URL.Path, pages))
		fmt.Fprint(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	}))
	defer endless.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	reference := strings.TrimPrefix(endless.URL, "http://") + "/models/signs:v1"
	if r, err := VerifyRef(ctx, reference, k.Public(), RefOptions{Anonymous: true}); !errors.Is(err, errTooMany) || r.OK() {
		t.Errorf("after %d pages: %+v, %v", pages, r, err)
	}
}

func TestVerifyRefOfPackedModels(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	reg.subject = reg.pushModel(t, "v1", layer{"model.onnx", "application/vnd.cncf.model.weight.v1.tar+gzip", "tarball"})
	referrer, _ := reg.attest(t, k, nil)
	reg.attach(t, referrer)
	r, err := reg.verify(t, k, ":v1")
	if err != nil || !strings.Contains(strings.Join(r.NotChecked, "\n"), "no layer of the manifest is a bare ONNX file") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestVerifyRefOfUntypedModels: which layers are bare ONNX files, whose digest is checked. ORAS calls each file a tar that it is told no type for, and marks
// the folders that it really packs.
func TestVerifyRefOfUntypedModels(t *testing.T) {
	const other = "other model"
	for name, c := range map[string]struct {
		layer   layer
		unpack  bool
		checked bool // and passed, for the statement is about "model"
		refused bool
	}{
		"as oras pushes a file":          {layer{"model.onnx", ocispec.MediaTypeImageLayer, "model"}, false, true, false},
		"another file":                   {layer{"model.onnx", ocispec.MediaTypeImageLayer, other}, false, false, true},
		"a folder of that name":          {layer{"model.onnx", ocispec.MediaTypeImageLayer, other}, true, false, false},
		"a tar of ModelPack":             {layer{"model.onnx", "application/vnd.cncf.model.weight.v1.tar", other}, false, false, false},
		"a file that nothing tells":      {layer{"weights", ocispec.MediaTypeImageLayerGzip, "model"}, false, true, false},
		"another file, without a name":   {layer{"weights", ocispec.MediaTypeImageLayerGzip, other}, false, false, false},
		"another type that names ONNX":   {layer{"weights", onnxType, other}, false, false, true},
		"another name, of no known type": {layer{"a/model.ONNX", "application/octet-stream", "model"}, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			reg, k := newRegistry(t, true), newKey(t)
			unpack := fmt.Sprint(c.unpack)
			reg.subject = reg.pushModelAs(t, "v1", map[string]string{annotationUnpack: unpack}, c.layer)
			referrer, _ := reg.attest(t, k, nil)
			reg.attach(t, referrer)
			r, err := reg.verify(t, k, ":v1")
			if (err != nil) != c.refused {
				t.Fatalf("%+v, %v", r, err)
			}
			checked := slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == CheckModel && c.Passed })
			said := strings.Contains(strings.Join(r.NotChecked, "\n"), "model file digest")
			if checked != c.checked || !c.refused && said == c.checked {
				t.Errorf("checks %+v, not checked %q", r.Checks, r.NotChecked)
			}
		})
	}
}

// A registry may lie about content, but not without being caught.
func TestVerifyRefDistrustsTheRegistry(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	referrer, _ := reg.attest(t, k, nil)
	d := reg.attach(t, referrer)
	for name, path := range map[string]string{"model manifest": "/manifests/" + reg.subject.Digest.String(), "referrer manifest": "/manifests/" + d.Digest.String(), "bundle": "/blobs/"} {
		liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorder := httptest.NewRecorder()
			reg.server.ServeHTTP(recorder, r)
			body := recorder.Body.Bytes()
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, path) {
				body = bytes.Replace(body, []byte("a"), []byte("b"), 1)
			}
			for key, values := range recorder.Header() {
				w.Header()[key] = values
			}
			w.WriteHeader(recorder.Code)
			_, _ = w.Write(body)
		}))
		_, err := VerifyRef(t.Context(), strings.TrimPrefix(liar.URL, "http://")+"/models/signs:v1", k.Public(), RefOptions{Anonymous: true})
		liar.Close()
		if err == nil {
			t.Errorf("a changed %s was verified", name)
		}
	}
}

func TestVerifyRefErrors(t *testing.T) {
	reg, k := newRegistry(t, true), newKey(t)
	for _, reference := range []string{"", ":none", "@sha256:" + sha("none")} {
		if r, err := reg.verify(t, k, reference); err == nil || errors.Is(err, ErrVerification) {
			t.Errorf("%q: %+v, %v; want an error of the registry", reference, r, err)
		}
	}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{reg.subject}})
	if err != nil {
		t.Fatal(err)
	}
	reg.pushManifest(t, ocispec.MediaTypeImageIndex, index, "index")
	if _, err := reg.verify(t, k, ":index"); err == nil || !strings.Contains(err.Error(), "only a single manifest") {
		t.Errorf("index: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := VerifyRef(cancelled, reg.host+"/models/signs:v1", k.Public(), RefOptions{Anonymous: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestVerifyRefSaysWhy: of what is not there, the registry's explanation is passed on, without what a terminal would obey.
func TestVerifyRefSaysWhy(t *testing.T) {
	const why = `v1 is not visible: admission 0199 is in state held: no clean dataset "cifar"`
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Warning", `299 - "`+strings.ReplaceAll(why, `"`, `\"`)+`\x1b[2J"`)
		w.WriteHeader(http.StatusNotFound)
	}))
	defer registry.Close()
	_, err := VerifyRef(t.Context(), strings.TrimPrefix(registry.URL, "http://")+"/models/signs:v1", newKey(t).Public(), RefOptions{Anonymous: true})
	if err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v; want %s", err, why)
	}
}

func TestPlainHTTPIsForLoopback(t *testing.T) {
	for ref, want := range map[string]bool{
		"localhost:5000/a:b": true, "127.0.0.1:5000/a:b": true, "[::1]:5000/a:b": true, "localhost/a:b": true,
		"registry.example/a:b": false, "10.0.0.1:5000/a:b": false, "localhost.example:80/a:b": false,
	} {
		repo, err := repository(ref, RefOptions{Anonymous: true})
		if err != nil || repo.PlainHTTP != want {
			t.Errorf("%s: plain HTTP %v (%v), want %v", ref, err == nil && repo.PlainHTTP, err, want)
		}
	}
	for ref, o := range map[string]RefOptions{"registry.example/a:b": {Anonymous: true, PlainHTTP: true}, "127.0.0.1:5000/a:b": {Anonymous: true, TLS: true}} {
		if repo, err := repository(ref, o); err != nil || repo.PlainHTTP != o.PlainHTTP {
			t.Errorf("%s by option: %v", ref, err)
		}
	}
}

func TestArtifacts(t *testing.T) {
	k := newKey(t)
	a := signed(t, k, nil)
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.NewDigestFromEncoded(digest.SHA256, sha("manifest")), Size: 100, Annotations: map[string]string{"x": "y"}}
	referrer, legacy, err := a.Artifacts(subject)
	if err != nil {
		t.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(referrer.Manifest, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.ArtifactType != BundleMediaType || manifest.Layers[0].MediaType != BundleMediaType || manifest.Config.MediaType != ocispec.MediaTypeEmptyJSON ||
		manifest.Subject.Digest != subject.Digest || manifest.Subject.Size != 100 || manifest.Subject.Annotations != nil || referrer.Tag != "" {
		t.Errorf("referrer %s", referrer.Manifest)
	}
	for key, want := range map[string]string{"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": PredicateType} {
		if manifest.Annotations[key] != want {
			t.Errorf("annotation %s is %q", key, manifest.Annotations[key])
		}
	}
	manifest = ocispec.Manifest{}
	if err := json.Unmarshal(legacy.Manifest, &manifest); err != nil {
		t.Fatal(err)
	}
	l := manifest.Layers[0]
	if sig, ok := l.Annotations["dev.cosignproject.cosign/signature"]; !ok || sig != "" || l.Annotations["predicateType"] != PredicateType || l.MediaType != "application/vnd.dsse.envelope.v1+json" {
		t.Errorf("legacy %s", legacy.Manifest)
	}
	for _, artifact := range []Artifact{referrer, legacy} {
		if len(artifact.Blobs) != 2 {
			t.Errorf("%d blobs", len(artifact.Blobs))
		}
		for d, blob := range artifact.Blobs {
			if d != digest.FromBytes(blob) || !bytes.Contains(artifact.Manifest, []byte(d)) {
				t.Errorf("blob %s is not what the manifest names", d)
			}
		}
	}
	again, _, err := a.Artifacts(subject)
	if err != nil || !bytes.Equal(again.Manifest, referrer.Manifest) {
		t.Errorf("the same attestation gave other bytes (%v)", err)
	}
	subject.Digest = digest.FromString("other")
	if _, _, err := a.Artifacts(subject); !errors.Is(err, ErrSubject) {
		t.Errorf("another subject: %v, want ErrSubject", err)
	}
	if _, _, err := (&Attestation{Envelope: []byte("{}")}).Artifacts(subject); err == nil {
		t.Error("an empty envelope was packed")
	}
}
