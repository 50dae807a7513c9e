package integration

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// layerFile is one layer of a package that is pushed.
type layerFile struct {
	name, mediaType string
	content         []byte
}

// orasRepository is a repository of the server, for oras-go.
func (s *server) orasRepository(name string) *remote.Repository {
	s.Helper()
	repo, err := remote.NewRepository(s.address + "/" + name)
	if err != nil {
		s.Fatal(err)
	}
	repo.PlainHTTP = true
	return repo
}

// pushORAS pushes files as one package, as `oras push` does: the first is the config.
func (s *server) pushORAS(repository, tag string, annotations map[string]string, files ...layerFile) ocispec.Descriptor {
	s.Helper()
	store := memory.New()
	var pushed []ocispec.Descriptor
	for _, f := range files {
		d, err := oras.PushBytes(s.Context(), store, f.mediaType, f.content)
		if err != nil {
			s.Fatal(err)
		}
		if f.name != "" {
			d.Annotations = map[string]string{ocispec.AnnotationTitle: f.name}
		}
		pushed = append(pushed, d)
	}
	manifest, err := oras.PackManifest(s.Context(), store, oras.PackManifestVersion1_1, "application/vnd.test.model",
		oras.PackManifestOptions{ConfigDescriptor: &pushed[0], Layers: pushed[1:], ManifestAnnotations: annotations})
	if err != nil {
		s.Fatal(err)
	}
	if err := store.Tag(s.Context(), manifest, tag); err != nil {
		s.Fatal(err)
	}
	if _, err := oras.Copy(s.Context(), store, tag, s.orasRepository(repository), tag, oras.DefaultCopyOptions); err != nil {
		s.Fatal(err)
	}
	return manifest
}

// pushCrane pushes files as one package with go-containerregistry and returns its digest.
func (s *server) pushCrane(repository, tag string, files ...layerFile) string {
	s.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, f := range files {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:       static.NewLayer(f.content, types.MediaType(f.mediaType)),
			MediaType:   types.MediaType(f.mediaType),
			Annotations: map[string]string{ocispec.AnnotationTitle: f.name},
		})
		if err != nil {
			s.Fatal(err)
		}
	}
	if err := crane.Push(img, s.address+"/"+repository+":"+tag, crane.Insecure); err != nil {
		s.Fatal(err)
	}
	return digestOf(s.T, img)
}

func digestOf(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// pack makes a package of files in memory, tagged v1.
func pack(t *testing.T, files ...layerFile) (*memory.Store, ocispec.Descriptor) {
	t.Helper()
	store := memory.New()
	var layers []ocispec.Descriptor
	for _, f := range files {
		d, err := oras.PushBytes(t.Context(), store, f.mediaType, f.content)
		if err != nil {
			t.Fatal(err)
		}
		d.Annotations = map[string]string{ocispec.AnnotationTitle: f.name}
		layers = append(layers, d)
	}
	manifest, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, "application/vnd.test.model", oras.PackManifestOptions{Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Tag(t.Context(), manifest, "v1"); err != nil {
		t.Fatal(err)
	}
	return store, manifest
}

// repositoryOf is a repository of a registry, for oras-go, with the user logged in; "" is anonymous.
func repositoryOf(t *testing.T, host, name, user string) *remote.Repository {
	t.Helper()
	repo, err := remote.NewRepository(host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	client := &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache()}
	if user != "" {
		client.Credential = auth.StaticCredential(host, auth.Credential{Username: user, Password: user + user})
	}
	repo.Client = client
	return repo
}
