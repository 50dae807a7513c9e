package registry_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/registry"
)

// keeper admits every push. A real one asks a policy and starts the sanitizing.
type keeper struct{ pushed registry.Push }

func (k *keeper) Admit(_ context.Context, p registry.Push) (*registry.Denial, error) {
	k.pushed = p
	return nil, nil
}

func (k *keeper) Status(repository, reference string) (registry.Status, bool) {
	return registry.Status{ID: "42", State: "sanitizing"}, true
}

// A model is pushed, is hidden, is released in a sanitized form, and is visible.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	check(err)
	defer os.RemoveAll(dir)
	k := &keeper{}
	gateway, err := registry.New(registry.Config{
		Dir:       filepath.Join(dir, "stores"),
		Intercept: func(repository string) bool { return strings.HasPrefix(repository, "models/") },
		Admitter:  k,
	})
	check(err)
	defer gateway.Close()
	server := httptest.NewServer(gateway)
	defer server.Close()
	repository, err := remote.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/models/lenet")
	check(err)
	repository.PlainHTTP = true

	local := memory.New()
	layer, err := oras.PushBytes(ctx, local, "application/octet-stream", []byte("the pushed model"))
	check(err)
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "lenet.onnx"}
	pushed, err := oras.PackManifest(ctx, local, oras.PackManifestVersion1_1, "application/vnd.example", oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	check(err)
	check(local.Tag(ctx, pushed, "v1"))
	_, err = oras.Copy(ctx, local, "v1", repository, "v1", oras.DefaultCopyOptions)
	check(err)

	_, err = repository.Resolve(ctx, "v1")
	fmt.Println("pull before the release:", err != nil)

	pkg, err := gateway.Fetch(ctx, "models/lenet", k.pushed.Digest, filepath.Join(dir, "work"))
	check(err)
	sanitized := pkg.Files[0].Path + ".sanitized"
	check(os.WriteFile(sanitized, []byte("the sanitized model"), 0o600))
	prepared, err := gateway.Release(ctx, registry.Release{
		Repository: "models/lenet", SourceDigest: k.pushed.Digest,
		Replace: map[string]string{pkg.Models[0].Digest: sanitized},
	})
	check(err)
	// Here the attestation is attached, with gateway.Attach.
	check(gateway.Tag(ctx, "models/lenet", "v1", prepared.Digest.String()))

	manifest, err := repository.Resolve(ctx, "v1")
	check(err)
	fmt.Println("pull after the release:", manifest.Digest == prepared.Digest)
	// Output:
	// pull before the release: true
	// pull after the release: true
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
