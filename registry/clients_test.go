package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// orasPackage packs a model as `oras push` does and returns the store and the manifest.
func orasPackage(t *testing.T, content []byte) (*memory.Store, ocispec.Descriptor) {
	t.Helper()
	store := memory.New()
	layer, err := oras.PushBytes(t.Context(), store, "application/octet-stream", content)
	if err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "model.onnx"}
	root, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, "application/vnd.example.model", oras.PackManifestOptions{
		Layers: []ocispec.Descriptor{layer}, ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: "2024-01-01T00:00:00Z"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Tag(t.Context(), root, "v1"); err != nil {
		t.Fatal(err)
	}
	return store, root
}

func TestORAS(t *testing.T) { eachBackend(t, testORAS) }

func testORAS(t *testing.T, s *server) {
	ctx := t.Context()
	r := s.repository(repo)
	store, root := orasPackage(t, model("from oras"))
	for range 2 { // a push can be repeated
		if got, err := oras.Copy(ctx, store, "v1", r, "v1", oras.DefaultCopyOptions); err != nil || got.Digest != root.Digest {
			t.Fatalf("push: %v %v", got, err)
		}
	}
	if n := len(s.desk.pushes); n != 2 {
		t.Errorf("%d admissions, want 2", n)
	}
	if _, err := oras.Copy(ctx, r, "v1", memory.New(), "", oras.DefaultCopyOptions); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("pull by tag: %v, want not found", err)
	}
	// By digest the client prints the explanation as a warning.
	var warnings []string
	r.HandleWarning = func(w remote.Warning) { warnings = append(warnings, w.Text) }
	if _, err := r.Resolve(ctx, root.Digest.String()); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("resolve: %v, want not found", err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "adm-1 is in state quarantined") {
		t.Errorf("warnings %q", warnings)
	}
	var response *errcode.ErrorResponse
	if _, err := r.Manifests().Fetch(ctx, root); !errors.As(err, &response) || response.StatusCode != http.StatusForbidden || response.Errors[0].Code != errcode.ErrorCodeDenied {
		t.Errorf("fetch by digest: %v, want DENIED", err)
	}
	none := func(tags []string) error {
		if len(tags) > 0 {
			t.Errorf("tags %v", tags)
		}
		return nil
	}
	if err := r.Tags(ctx, "", none); err != nil && (!errors.As(err, &response) || response.StatusCode != http.StatusNotFound) {
		t.Errorf("tags: %v", err)
	}

	path, sanitized := sanitize(t)
	source := s.desk.last(t).Models[0].Digest
	p, err := s.g.Release(ctx, Release{Repository: repo, SourceDigest: root.Digest.String(), Replace: map[string]string{source: path}})
	if err != nil {
		t.Fatal(err)
	}
	a := attestation(t, p.Descriptor)
	if err := errors.Join(s.g.Attach(ctx, repo, a), s.g.Tag(ctx, repo, "v1", p.Digest.String())); err != nil {
		t.Fatal(err)
	}
	pulled := memory.New()
	got, err := oras.Copy(ctx, r, "v1", pulled, "", oras.DefaultCopyOptions)
	if err != nil || got.Digest != p.Digest {
		t.Fatalf("pull: %v %v", got, err)
	}
	if ok, err := pulled.Exists(ctx, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(sanitized), Size: int64(len(sanitized))}); err != nil || !ok {
		t.Errorf("the sanitized model was not pulled: %v", err)
	}
	var referrers []ocispec.Descriptor
	err = r.Referrers(ctx, p.Descriptor, "application/vnd.dev.sigstore.bundle.v0.3+json", func(page []ocispec.Descriptor) error {
		referrers = append(referrers, page...)
		return nil
	})
	if err != nil || len(referrers) != 1 || referrers[0].Digest != digest.FromBytes(a.Manifest) {
		t.Errorf("referrers: %v %v", referrers, err)
	}
	if _, err := oras.Copy(ctx, store, "v1", r, "v1", oras.DefaultCopyOptions); err != nil { // the source once more
		t.Errorf("push after the release: %v", err)
	}
}

func TestORASPrintsTheReasonsOfADenial(t *testing.T) {
	eachBackend(t, testORASPrintsTheReasonsOfADenial)
}

func testORASPrintsTheReasonsOfADenial(t *testing.T, s *server) {
	s.desk.answer(&Denial{Reasons: []string{"no clean dataset is configured"}}, nil)
	store, _ := orasPackage(t, model("denied"))
	_, err := oras.Copy(t.Context(), store, "v1", s.repository(repo), "v1", oras.DefaultCopyOptions)
	if err == nil || !strings.Contains(err.Error(), "no clean dataset is configured") {
		t.Errorf("err = %v", err)
	}
	s.desk.answer(nil, errors.New("queue is down"))
	var response *errcode.ErrorResponse
	if _, err = oras.Copy(t.Context(), store, "v1", s.repository(repo), "v1", oras.DefaultCopyOptions); !errors.As(err, &response) || response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("err = %v, want 503", err)
	}
	s.desk.answer(nil, nil)
	if _, err = oras.Copy(t.Context(), store, "v1", s.repository(repo), "v1", oras.DefaultCopyOptions); err != nil {
		t.Errorf("push after the failure: %v", err)
	}
}

// image builds a ggcr image with a model and a text layer.
func image(t *testing.T, content []byte) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img, err := mutate.Append(img,
		mutate.Addendum{Layer: static.NewLayer(content, "application/onnx"), Annotations: map[string]string{ocispec.AnnotationTitle: "model.onnx"}},
		mutate.Addendum{Layer: static.NewLayer([]byte("notes"), "text/plain"), Annotations: map[string]string{ocispec.AnnotationTitle: "NOTES"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestGoContainerRegistry(t *testing.T) { eachBackend(t, testGoContainerRegistry) }

func testGoContainerRegistry(t *testing.T, s *server) {
	img := image(t, model("from crane"))
	tag, err := name.NewTag(s.host+"/"+repo+":v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := ggcr.Write(tag, img, ggcr.WithContext(t.Context())); err != nil {
			t.Fatalf("push: %v", err)
		}
	}
	d, err := partial.Descriptor(img)
	if err != nil {
		t.Fatal(err)
	}
	var refused *transport.Error
	if _, err := ggcr.Image(tag); !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound || refused.Errors[0].Code != transport.ManifestUnknownErrorCode {
		t.Errorf("pull by tag: %v", err)
	}
	if _, err := ggcr.Image(tag.Context().Digest(d.Digest.String())); !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
		t.Errorf("pull by digest: %v", err)
	}
	path, sanitized := sanitize(t)
	p, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: d.Digest.String(), Replace: map[string]string{s.desk.last(t).Models[0].Digest: path}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.g.Attach(t.Context(), repo, attestation(t, p.Descriptor)), s.g.Tag(t.Context(), repo, "v1", p.Digest.String())); err != nil {
		t.Fatal(err)
	}
	released, err := ggcr.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := released.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	for i, want := range [][]byte{sanitized, []byte("notes")} {
		rc, err := layers[i].Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, want) {
			t.Errorf("layer %d: %q, %v", i, got, err)
		}
		rc.Close()
	}
	if tags, err := crane.ListTags(s.host + "/" + repo); err != nil || !slices.Contains(tags, "v1") {
		t.Errorf("tags %v, %v", tags, err)
	}
	if list := s.catalog(); list != "" {
		if repos, err := crane.Catalog(s.host); err != nil || !slices.Equal(repos, []string{repo}) {
			t.Errorf("catalog %v, %v", repos, err)
		}
	}
	index, err := ggcr.Referrers(tag.Context().Digest(p.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := index.IndexManifest(); err != nil || len(m.Manifests) != 1 {
		t.Errorf("referrers %v, %v", m, err)
	}
	if err := crane.Delete(s.host + "/" + repo + "@" + p.Digest.String()); !errors.As(err, &refused) || refused.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("delete: %v", err)
	}
	// A copy into a repository that is not intercepted carries the sanitized model, mounted.
	if err := crane.Copy(s.host+"/"+repo+":v1", s.host+"/public/copy:v1"); err != nil {
		t.Errorf("copy: %v", err)
	}
}

func TestImageIndexIsAProblem(t *testing.T) { eachBackend(t, testImageIndexIsAProblem) }

func testImageIndexIsAProblem(t *testing.T, s *server) {
	tag, err := name.NewTag(s.host+"/"+repo+":all", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(t, model("child"))})
	if err := ggcr.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	p := s.desk.last(t)
	if p.Tag != "all" || !strings.Contains(p.Problem, "index") || len(p.Models) != 0 {
		t.Errorf("push %+v", p)
	}
	if _, err := s.g.Fetch(t.Context(), repo, p.Digest, t.TempDir()); !errors.Is(err, ErrPackage) {
		t.Errorf("Fetch: %v, want ErrPackage", err)
	}
	if _, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: p.Digest}); !errors.Is(err, ErrPackage) {
		t.Errorf("Release before its manifests: %v, want ErrPackage", err)
	}
	// Its manifest was pushed before it. Both can be admitted as they are, in this order.
	for _, d := range []string{s.desk.pushes[0].Digest, p.Digest} {
		if _, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: d}); err != nil {
			t.Error(err)
		}
	}
	if err := s.g.Tag(t.Context(), repo, "all", p.Digest); err != nil {
		t.Error(err)
	}
	released, err := ggcr.Index(tag)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := released.IndexManifest(); err != nil || len(m.Manifests) != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

func TestOtherRepositoriesAreAPlainRegistry(t *testing.T) {
	eachBackend(t, testOtherRepositoriesAreAPlainRegistry)
}

func testOtherRepositoriesAreAPlainRegistry(t *testing.T, s *server) {
	ctx := t.Context()
	r := s.repository("public/tools")
	store, root := orasPackage(t, model("public"))
	if _, err := oras.Copy(ctx, store, "v1", r, "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	if len(s.desk.pushes) != 0 {
		t.Error("the admitter was asked about a repository that is not intercepted")
	}
	s = s.restart()
	r = s.repository("public/tools")
	pulled := memory.New()
	if got, err := oras.Copy(ctx, r, "v1", pulled, "", oras.DefaultCopyOptions); err != nil || got.Digest != root.Digest {
		t.Fatalf("pull: %v %v", got, err)
	}
	if err := r.Delete(ctx, root); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(ctx, "v1"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("after the delete: %v", err)
	}
	blob := s.putBlob("public/tools", []byte("to be deleted"))
	if err := r.Blobs().Delete(ctx, blob); err != nil {
		t.Error(err)
	}
	s.expect(http.StatusNotFound, "GET", "/v2/public/tools/blobs/"+blob.Digest.String(), nil)
}

// A large upload is sent in chunks, is asked about, and goes on where it was.
func TestResumedUpload(t *testing.T) { eachBackend(t, testResumedUpload) }

func testResumedUpload(t *testing.T, s *server) {
	for _, repository := range []string{repo, "public/big"} {
		content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		half := len(content) / 2
		location := s.expect(http.StatusAccepted, "POST", "/v2/"+repository+"/blobs/uploads/", nil).header.Get("Location")
		location = s.expect(http.StatusAccepted, "PATCH", location, bytes.NewReader(content[:half]), "Content-Range", "0-"+itoa(int64(half-1))).header.Get("Location")
		s.expect(http.StatusRequestedRangeNotSatisfiable, "PATCH", location, strings.NewReader("x"), "Content-Range", "7-7")
		r := s.expect(http.StatusNoContent, "GET", location, nil)
		if got, want := r.header.Get("Range"), "0-"+itoa(int64(half-1)); got != want {
			t.Errorf("%s: Range %s, want %s", repository, got, want)
		}
		d := digest.FromBytes(content)
		location = r.header.Get("Location")
		r = s.expect(http.StatusCreated, "PUT", location+"&digest="+d.String(), io.MultiReader(bytes.NewReader(content[half:])))
		if got, want := r.header.Get("Location"), "/v2/"+repository+"/blobs/"+d.String(); got != want {
			t.Errorf("%s: Location %s, want %s", repository, got, want)
		}
		if r := s.expect(http.StatusOK, "HEAD", "/v2/"+repository+"/blobs/"+d.String(), nil); r.header.Get("Content-Length") != itoa(int64(len(content))) {
			t.Errorf("%s: HEAD after the upload: %v", repository, r.header)
		}
		location = s.expect(http.StatusAccepted, "POST", "/v2/"+repository+"/blobs/uploads/", nil).header.Get("Location")
		s.expect(http.StatusNoContent, "DELETE", location, nil)
		if r := s.do("PATCH", location, strings.NewReader("x")); r.status < 400 || r.status > 499 {
			t.Errorf("%s: PATCH of a cancelled upload: %d", repository, r.status)
		}
	}
}

// A mount of released content into an intercepted repository is one, any other is an upload.
func TestMount(t *testing.T) { eachBackend(t, testMount) }

func testMount(t *testing.T, s *server) {
	d := s.putBlob("public/base", []byte("a public layer")).Digest
	r := s.expect(http.StatusCreated, "POST", "/v2/"+repo+"/blobs/uploads/?mount="+d.String()+"&from=public/base", nil)
	if got, want := r.header.Get("Location"), "/v2/"+repo+"/blobs/"+d.String(); got != want {
		t.Errorf("Location %s, want %s", got, want)
	}
	s.expect(http.StatusOK, "HEAD", "/v2/"+repo+"/blobs/"+d.String(), nil)
	s.expect(http.StatusForbidden, "GET", "/v2/"+repo+"/blobs/"+d.String(), nil)
	s.expect(http.StatusCreated, "POST", "/v2/public/copy/blobs/uploads/?mount="+d.String()+"&from=public/base", nil)
	s.expect(http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/?mount="+d.String()+"&from=public/absent", nil)
}

func TestConcurrentPushesOfOnePackage(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	store, root := orasPackage(t, model("many"))
	errs := make(chan error)
	const n = 8
	for i := range n {
		go func() {
			tag := "v" + itoa(int64(i))
			_, err := oras.Copy(context.Background(), store, "v1", s.repository(repo), tag, oras.DefaultCopyOptions)
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := s.g.Fetch(t.Context(), repo, root.Digest.String(), t.TempDir()); err != nil {
		t.Error(err)
	}
	if len(s.g.pushes.keys) != 0 {
		t.Errorf("%d locks are left", len(s.g.pushes.keys))
	}
	if entries, err := os.ReadDir(s.g.quarantine.dir(repo) + "/_uploads"); err == nil && len(entries) > 0 {
		t.Errorf("%d unfinished uploads are left", len(entries))
	}
}
