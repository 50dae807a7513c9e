package registry

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// entries are what an archive of a package has, in this order: folders, links, long names, odd metadata.
func archiveOf(t *testing.T, onnx []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	long := "models/" + strings.Repeat("deep/", 40) + "notes.txt"
	for _, e := range []struct {
		h       tar.Header
		content []byte
	}{
		{tar.Header{Name: "models/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1700000000, 0)}, nil},
		{tar.Header{Name: "models/README.md", Mode: 0o644, Uid: 1000, Uname: "someone", ModTime: time.Unix(1700000001, 0)}, []byte("# read me\n")},
		{tar.Header{Name: "models/net.onnx", Mode: 0o640, Gid: 7, ModTime: time.Unix(1700000002, 5), Format: tar.FormatPAX, PAXRecords: map[string]string{"GRINDSTONE.note": "kept"}}, onnx},
		{tar.Header{Name: "models/net.onnx.data", Mode: 0o644}, []byte("external weights")},
		{tar.Header{Name: "models/link.onnx", Typeflag: tar.TypeSymlink, Linkname: "net.onnx"}, nil},
		{tar.Header{Name: "models/hard.onnx", Typeflag: tar.TypeLink, Linkname: "models/net.onnx"}, nil},
		{tar.Header{Name: long, Mode: 0o644}, []byte("a long name")},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root")},
	} {
		e.h.Size = int64(len(e.content))
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), make([]byte, 3*512)...) // as tar(1) fills up its last record
}

// expandAll returns the content of a layer without its compression.
func expandAll(t *testing.T, layer []byte) []byte {
	t.Helper()
	r, _, err := expand(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Models in tar layers are found, written out with what lies beside them, and replaced: nothing else of the archive changes.
func TestModelsInArchives(t *testing.T) {
	onnx := model("in an archive")
	archive := archiveOf(t, onnx)
	diff := digest.FromBytes(archive).String()
	image := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]},"history":[{"created_by":"COPY models"}]}`, diff)
	modelPack := fmt.Sprintf(`{"config":{"format":"onnx"},"modelfs":{"type":"layers","diffIds":["%s"]}}`, diff)
	for name, c := range map[string]struct {
		layer                   []byte
		layerType, config, kind string
	}{
		"ModelKit, tar":      {archive, "application/vnd.kitops.modelkit.model.v1.tar", `{"manifestVersion":"1.0.0"}`, "application/vnd.kitops.modelkit.config.v1+json"},
		"ModelKit, tar+gzip": {gzipOf(t, archive), "application/vnd.kitops.modelkit.model.v1.tar+gzip", `{"manifestVersion":"1.0.0"}`, "application/vnd.kitops.modelkit.config.v1+json"},
		"ModelPack, zstd":    {zstdOf(t, archive), "application/vnd.cncf.model.weight.v1.tar+zstd", modelPack, "application/vnd.cncf.model.config.v1+json"},
		"modelcar":           {gzipOf(t, archive), ocispec.MediaTypeImageLayerGzip, image, ocispec.MediaTypeImageConfig},
		"modelcar, tar":      {archive, ocispec.MediaTypeImageLayer, image, ocispec.MediaTypeImageConfig},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, t.TempDir(), Limits{})
			config := titled(s.putBlob(repo, []byte(c.config)), c.kind, "")
			layer := titled(s.putBlob(repo, c.layer), c.layerType, "")
			raw, err := json.MarshalIndent(ocispec.Manifest{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
				Annotations: map[string]string{"a": "b"},
			}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			r := s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v1", bytes.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest, "X-Test-Identity", pusher)
			source := r.header.Get("Docker-Content-Digest")
			want := []File{{Name: "models/net.onnx", Digest: digest.FromBytes(onnx).String(), MediaType: c.layerType, Size: int64(len(onnx))}}
			if p := s.desk.last(t); p.Problem != "" || !reflect.DeepEqual(p.Models, want) {
				t.Fatalf("%+v", p)
			}
			dir := t.TempDir()
			pkg, err := s.g.Fetch(t.Context(), repo, source, dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, f := range pkg.Files {
				content, err := os.ReadFile(f.Path)
				if err != nil || digest.FromBytes(content).String() != f.Digest {
					t.Errorf("%s: %v", f.Name, err)
				}
				names = append(names, f.Name)
			}
			if !slices.Contains(names, "models/net.onnx.data") || slices.Contains(names, "etc/passwd") {
				t.Errorf("written out: %q", names)
			}
			path, sanitized := sanitize(t)
			release := Release{Repository: repo, SourceDigest: source, Replace: map[string]string{digest.FromBytes(onnx).String(): path}}
			release.SHA256 = map[string]string{digest.FromBytes(onnx).String(): digest.FromString("another").Encoded()}
			if p, err := s.g.Release(t.Context(), release); !errors.Is(err, ErrReplaced) {
				t.Errorf("a file that has changed is released: %v, %v", p, err)
			}
			release.SHA256[digest.FromBytes(onnx).String()] = digest.FromBytes(sanitized).Encoded()
			p, err := s.g.Release(t.Context(), release)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := s.g.Release(t.Context(), release); err != nil || again.Digest != p.Digest {
				t.Errorf("repeated, the release is %v, %v; it was %v", again.Digest, err, p.Digest)
			}
			var m ocispec.Manifest
			text := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/manifests/"+p.Digest.String(), nil).body
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Fatal(err)
			}
			if m.Layers[0].MediaType != c.layerType || m.Annotations["a"] != "b" {
				t.Errorf("%s", text)
			}
			other := bytes.Replace(raw, []byte(`"a": "b"`), []byte(`"a": "c"`), 1)
			s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v2", bytes.NewReader(other), "Content-Type", ocispec.MediaTypeImageManifest, "X-Test-Identity", pusher)
			like, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: digest.FromBytes(other).String(), Twin: &Twin{source, p.Digest.String()}})
			if err != nil {
				t.Fatal(err)
			}
			if twin := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/manifests/"+like.Digest.String(), nil).body; twin != strings.Replace(text, `"a": "b"`, `"a": "c"`, 1) {
				t.Errorf("like its twin it is released as\n%s\nwhich is\n%s", twin, text)
			}
			got := []byte(s.expect(http.StatusOK, "GET", "/v2/"+repo+"/blobs/"+m.Layers[0].Digest.String(), nil).body)
			if bytes.HasPrefix(c.layer, []byte{0x1f, 0x8b}) != bytes.HasPrefix(got, []byte{0x1f, 0x8b}) {
				t.Error("the compression changed")
			}
			checkArchive(t, archive, expandAll(t, got), sanitized)
			diffID := digest.FromBytes(expandAll(t, got)).String()
			newConfig := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/blobs/"+m.Config.Digest.String(), nil).body
			if want := strings.ReplaceAll(c.config, diff, diffID); newConfig != want {
				t.Errorf("config %s\nwant %s", newConfig, want)
			}
			s.expect(http.StatusForbidden, "GET", "/v2/"+repo+"/blobs/"+layer.Digest.String(), nil)
		})
	}
}

// checkArchive compares two archives, of which the second has another models/net.onnx.
func checkArchive(t *testing.T, before, after, sanitized []byte) {
	t.Helper()
	a, b := tar.NewReader(bytes.NewReader(before)), tar.NewReader(bytes.NewReader(after))
	for {
		x, err := a.Next()
		y, err2 := b.Next()
		if err == io.EOF && err2 == io.EOF {
			break
		}
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		old, err := io.ReadAll(a)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := io.ReadAll(b)
		if err != nil {
			t.Fatal(err)
		}
		if x.Name == "models/net.onnx" {
			if !bytes.Equal(fresh, sanitized) {
				t.Errorf("the model is %q", fresh)
			}
			x.Size = y.Size
		} else if !bytes.Equal(old, fresh) {
			t.Errorf("%s changed", x.Name)
		}
		x.Format, y.Format = 0, 0
		if !reflect.DeepEqual(x, y) {
			t.Errorf("the header of %s\n%+v\nis now\n%+v", x.Name, x, y)
		}
	}
	// What comes after the model has every byte that it had.
	at, now := bytes.Index(before, []byte("models/net.onnx.data")), bytes.Index(after, []byte("models/net.onnx.data"))
	if !bytes.Equal(before[at:], after[now:]) {
		t.Error("the rest of the archive changed")
	}
	if at := bytes.Index(before, []byte("GRINDSTONE")); !bytes.Equal(before[:at-600], after[:at-600]) {
		t.Error("the beginning of the archive changed")
	}
}

// Archives that lie about where their files are, or that cannot be written anew, keep their package in quarantine; nothing is written
// outside the folder.
func TestHostileArchives(t *testing.T) {
	onnx := string(model("hostile"))
	two := func(entries ...string) []byte { return tarOf(t, entries...) }
	symlinked := func() []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range []*tar.Header{
			{Name: "out", Typeflag: tar.TypeSymlink, Linkname: filepath.Join(os.TempDir(), "grindstone-escape")},
			{Name: "out/m.onnx", Mode: 0o644, Size: int64(len(onnx))},
		} {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.WriteString(w, onnx); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		layer   []byte
		problem string // "" is none
	}{
		"traversal":           {two("../../m.onnx", onnx), "not a safe relative path"},
		"absolute":            {two("/etc/m.onnx", onnx), "not a safe relative path"},
		"backslash":           {two(`..\m.onnx`, onnx), "not a safe relative path"},
		"drive":               {two(`c:m.onnx`, onnx), "not a safe relative path"},
		"control character":   {two("m\x01.onnx", onnx), "not a safe relative path"},
		"two of one name":     {two("m.onnx", onnx, "./m.onnx", onnx+"\x50\x01"), "two different files"},
		"the same twice":      {two("m.onnx", onnx, "./m.onnx", onnx), "takes the place of a model"},
		"cut":                 {two("m.onnx", onnx, "b", strings.Repeat("b", 2000))[:2500], "damaged"},
		"through a link":      {symlinked(), "takes the place of the folder of a model"},
		"beside, not safe":    {two("a/m.onnx", onnx, "a/../../x", "y"), ""},
		"a file and a folder": {two("a", "x", "a/m.onnx", onnx), "takes the place of the folder of a model"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, t.TempDir(), Limits{})
			config, layer := titled(s.putBlob(repo, []byte("{}")), "application/json", ""), titled(s.putBlob(repo, c.layer), "application/x-tar", "")
			raw := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/json","digest":%q,"size":2},"layers":[{"mediaType":"application/x-tar","digest":%q,"size":%d}]}`,
				config.Digest, layer.Digest, layer.Size)
			r := s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v1", strings.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest, "X-Test-Identity", pusher)
			p := s.desk.last(t)
			if !strings.Contains(p.Problem, c.problem) || c.problem == "" && p.Problem != "" {
				t.Errorf("problem %q, want %q", p.Problem, c.problem)
			}
			outer := t.TempDir()
			inner := filepath.Join(outer, "a", "b")
			if _, err := s.g.Fetch(t.Context(), repo, r.header.Get("Docker-Content-Digest"), inner); err != nil {
				t.Logf("fetch: %v", err)
			}
			var written []string
			err := filepath.WalkDir(outer, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && !strings.HasPrefix(path, inner) {
					written = append(written, path)
				}
				return err
			})
			if err != nil || len(written) > 0 {
				t.Errorf("written outside: %q, %v", written, err)
			}
			if _, err := os.Lstat(filepath.Join(os.TempDir(), "grindstone-escape")); err == nil {
				t.Error("written through a link")
			}
		})
	}
}

// Entries in odd formats are replaced like others, and what follows stays as it was.
func TestRepackOddEntries(t *testing.T) {
	path, sanitized := sanitize(t)
	old, rest := tarEntry("m.onnx", "pushed", at(100, "0140644\x00")), concat(pax('g', "comment", "kept"), tarEntry("a", "x"), tarEnd)
	var out bytes.Buffer
	if _, err := repack(t.Context(), bytes.NewReader(concat(pax('g', "comment", "first"), old, rest)), map[string]string{"m.onnx": path}, nil, &out); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(out.Bytes(), rest) {
		t.Error("what follows the model changed")
	}
	files := map[string]string{}
	err := walkTar(&out, func(h *tar.Header, content io.Reader) error {
		b, err := io.ReadAll(content)
		files[fmt.Sprintf("%s %o", h.Name, h.Mode)] = string(b)
		return err
	})
	if err != nil || len(files) != 3 || files["m.onnx 644"] != string(sanitized) {
		t.Errorf("%q, %v", files, err)
	}
}

// FuzzRepack rewrites archives: whatever it takes for one, it gives back, but for what is replaced.
func FuzzRepack(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a", "m.onnx", "b"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: 5, Mode: 0o644}); err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(w, "12345"); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:1500])
	f.Fuzz(func(t *testing.T, archive []byte) {
		if compressionOf(archive) != plain {
			return
		}
		var same bytes.Buffer
		diff, err := repack(t.Context(), bytes.NewReader(archive), nil, nil, &same)
		if err != nil {
			return
		}
		if !bytes.Equal(same.Bytes(), archive) || diff.diffAfter.Encoded() != fmt.Sprintf("%x", sha256.Sum256(archive)) {
			t.Error("an archive of which nothing is replaced changes")
		}
	})
}
