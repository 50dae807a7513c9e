package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"

	"grindstone/sanitize/onnx"
	"grindstone/webhook"
)

// tarFiles makes a tar archive of names and contents.
func tarFiles(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i+1 < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// untar returns the files of a tar archive.
func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if err == io.EOF {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(a); err != nil {
			t.Fatal(err)
		}
	}
}

// checkSanitized fails the test unless a file is an ONNX model of other bytes than the pushed one.
func checkSanitized(t *testing.T, pushed, released []byte) {
	t.Helper()
	if bytes.Equal(pushed, released) {
		t.Error("the released model is the pushed one")
	}
	if _, err := onnx.Parse(released); err != nil {
		t.Errorf("the released model: %v", err)
	}
}

// TestModelsInTarLayers pushes a KServe modelcar with crane, and ModelKits with oras, and has the models in their layers sanitized.
func TestModelsInTarLayers(t *testing.T) {
	needRuntime(t)
	s := startServer(t, "--config", tinyConfig(t, ""))
	model := tiny{name: "in a layer"}.file(t).content
	files := tarFiles(t, "models/README.md", "# colours\n", "models/colours/model.onnx", string(model), "etc/motd", "hello\n")

	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		t.Fatal(err)
	}
	base, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: v1.Config{Labels: map[string]string{"a": "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(base, types.OCIConfigJSON), layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := crane.Push(image, s.address+"/models/car:v1", crane.Insecure); err != nil {
		t.Fatal(err)
	}
	if a := s.await("models/car", 3*time.Minute); a.State != webhook.Released || a.Source.Models[0].Name != "models/colours/model.onnx" {
		t.Fatalf("%s %s: %s (%+v)", a.State, a.Reason, a.Message, a.Source.Models)
	}
	released, err := crane.Pull(s.address+"/models/car:v1", crane.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	config, err := released.ConfigFile()
	if err != nil || config.Config.Labels["a"] != "b" {
		t.Errorf("%+v, %v", config, err)
	}
	layers, err := released.Layers()
	if err != nil {
		t.Fatal(err)
	}
	inside, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	if diff, _, err := v1.SHA256(inside); err != nil || diff != config.RootFS.DiffIDs[0] {
		t.Errorf("the layer's diff_id is %v (%v), the config says %v", diff, err, config.RootFS.DiffIDs)
	}
	var flat bytes.Buffer
	if err := crane.Export(released, &flat); err != nil {
		t.Fatal(err)
	}
	got := untar(t, &flat)
	checkSanitized(t, model, got["models/colours/model.onnx"])
	if string(got["etc/motd"]) != "hello\n" || string(got["models/README.md"]) != "# colours\n" {
		t.Errorf("other files changed: %d files", len(got))
	}

	for name, c := range map[string]struct {
		pack   func([]byte) []byte
		unpack func(io.Reader) (io.Reader, error)
	}{
		"tar": {func(b []byte) []byte { return b }, func(r io.Reader) (io.Reader, error) { return r, nil }},
		"tar+gzip": {func(b []byte) []byte {
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			_, _ = w.Write(b)
			_ = w.Close()
			return z.Bytes()
		}, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		"tar+zstd": {func(b []byte) []byte {
			w, _ := zstd.NewWriter(nil)
			defer w.Close()
			return w.EncodeAll(b, nil)
		}, func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }},
	} {
		kit := "models/kit-" + strings.ReplaceAll(name, "+", "-")
		model := tiny{name: name}.file(t).content
		config := layerFile{"", "application/vnd.kitops.modelkit.config.v1+json", []byte(`{"manifestVersion":"1.0.0","model":{"name":"colours","path":"model.onnx"}}`)}
		s.pushORAS(kit, "v1", nil, config, layerFile{"", "application/vnd.kitops.modelkit.model.v1." + name, c.pack(tarFiles(t, "model.onnx", string(model), "Kitfile", "x"))})
		if a := s.await(kit, 3*time.Minute); a.State != webhook.Released {
			t.Errorf("%s: %s %s: %s", name, a.State, a.Reason, a.Message)
			continue
		}
		repo := s.orasRepository(kit)
		_, raw, err := oras.FetchBytes(t.Context(), repo, "v1", oras.DefaultFetchBytesOptions)
		if err != nil {
			t.Fatal(err)
		}
		layers := layersOf(t, raw)
		if want := "application/vnd.kitops.modelkit.model.v1." + name; layers[0].MediaType != want {
			t.Errorf("%s: the layer's type is %s", name, layers[0].MediaType)
		}
		packed, err := content.FetchAll(context.Background(), repo.Blobs(), layers[0])
		if err != nil {
			t.Fatal(err)
		}
		archive, err := c.unpack(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		files := untar(t, archive)
		checkSanitized(t, model, files["model.onnx"])
		if string(files["Kitfile"]) != "x" {
			t.Errorf("%s: %q", name, files["Kitfile"])
		}
	}
}

// TestSeveralModelsInOnePackage has every model of a package sanitized, in a layer of its own or with others in a tar, and one attestation for all.
func TestSeveralModelsInOnePackage(t *testing.T) {
	needRuntime(t)
	s := startServer(t, "--config", tinyConfig(t, ""))
	pushed := map[string][]byte{}
	for _, name := range []string{"a.onnx", "b/model.onnx", "c/model.onnx"} {
		pushed[name] = tiny{name: name}.file(t).content
	}
	s.pushCrane("models/several", "v1", layerFile{"a.onnx", "application/onnx", pushed["a.onnx"]}, layerFile{"rest.tar", "application/x-tar",
		tarFiles(t, "b/model.onnx", string(pushed["b/model.onnx"]), "c/model.onnx", string(pushed["c/model.onnx"]), "c/labels.txt", "red\n")})
	a := s.await("models/several", 5*time.Minute)
	if a.State != webhook.Released || len(a.Further) != 2 {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	manifest, err := crane.Manifest(s.address+"/models/several:v1", crane.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	layers := layersOf(t, manifest)
	released := untar(t, bytes.NewReader(s.pullBlob("models/several", layers[1].Digest.String())))
	released["a.onnx"] = s.pullBlob("models/several", layers[0].Digest.String())
	for name, was := range pushed {
		checkSanitized(t, was, released[name])
	}
	if string(released["c/labels.txt"]) != "red\n" {
		t.Errorf("another file changed: %q", released["c/labels.txt"])
	}
	out, err := s.grindstone("verify", s.address+"/models/several:v1", "--key", filepath.Join(s.dir, "keys", "grindstone.pub"))
	if err != nil || !strings.Contains(out, "9 passed") || !strings.Contains(out, "version 1.1") {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

func layersOf(t *testing.T, manifest []byte) []ocispec.Descriptor {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) == 0 {
		t.Fatalf("no layers: %s", manifest)
	}
	return m.Layers
}
