package registry

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Archives that expand to more than the budget, whatever compresses them, and archives of more entries than are taken, are not listed; what just fits is.
func TestArchiveLimits(t *testing.T) {
	onnx := string(model("m"))
	zeros := strings.Repeat("\x00", 1<<20)
	bomb := tarOf(t, "m.onnx", onnx, "zeros", zeros)
	for name, layer := range map[string][]byte{"plain": bomb, "gzip": gzipOf(t, bomb), "zstd": zstdOf(t, bomb)} {
		if _, err := listArchive(bytes.NewReader(layer), 1<<20); !errors.Is(err, errTooLarge) {
			t.Errorf("%s, over the budget: %v", name, err)
		}
		if files, err := listArchive(bytes.NewReader(layer), int64(len(bomb))+1); err != nil || len(files) != 2 {
			t.Errorf("%s, within the budget: %v, %v", name, files, err)
		}
	}
	many := func(entries int) *bytes.Buffer {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range entries {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint("d/", i), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	if _, err := listArchive(many(maxEntries), 1<<40); err != nil {
		t.Errorf("%d entries: %v", maxEntries, err)
	}
	if _, err := listArchive(many(maxEntries+1), 1<<40); !errors.Is(err, errEntries) {
		t.Errorf("%d entries: %v", maxEntries+1, err)
	}
	// Without a model, too.
	if _, err := inspectLayer(t, many(maxEntries).Bytes()); err != nil {
		t.Errorf("%d entries, no model: %v", maxEntries, err)
	}
	if _, err := inspectLayer(t, gzipOf(t, many(maxEntries+1).Bytes())); !errors.Is(err, errEntries) {
		t.Errorf("%d entries, no model: %v", maxEntries+1, err)
	}
}

// pushLayer pushes a package of one layer, and returns its digest and what the admitter is told.
func (s *server) pushLayer(layer []byte) (string, Push) {
	s.Helper()
	config, blob := s.putBlob(repo, []byte("{}")), s.putBlob(repo, layer)
	raw := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/json","digest":%q,"size":2},"layers":[{"mediaType":"application/octet-stream","digest":%q,"size":%d}]}`,
		config.Digest, blob.Digest, blob.Size)
	r := s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v1", strings.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest, "X-Test-Identity", pusher)
	return r.header.Get("Docker-Content-Digest"), s.desk.last(s.T)
}

// A package with an archive bomb, with a model in it or without, is held: whether there is a model cannot be told.
func TestPushedArchiveBombs(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{ArchiveBytes: 1 << 20})
	zeros := strings.Repeat("\x00", 2<<20)
	unknown := field(3, []byte(zeros)) // that may be a model has to be read to the end
	with, without := tarOf(t, "m.onnx", string(model("m")), "zeros", zeros), tarOf(t, "unknown", string(unknown))
	for name, layer := range map[string][]byte{
		"tar": with, "gzip": gzipOf(t, with), "zstd": zstdOf(t, with), "tar, no model": without, "gzip, no model": gzipOf(t, without), "zstd, no model": zstdOf(t, without),
		"zip": zipOf(t, "unknown", unknown), "one file in gzip": gzipOf(t, unknown),
	} {
		if _, p := s.pushLayer(layer); !strings.Contains(p.Problem, "too large to be looked through") {
			t.Errorf("%s: %q", name, p.Problem)
		}
	}
	fits := tarOf(t, "m.onnx", string(model("m")), "zeros", zeros[:1<<19])
	d, p := s.pushLayer(gzipOf(t, fits))
	if p.Problem != "" || len(p.Models) != 1 {
		t.Errorf("what fits: %+v", p)
	}
	if pkg, err := s.g.Fetch(t.Context(), repo, d, t.TempDir()); err != nil || len(pkg.Files) != 2 {
		t.Errorf("what fits is written out as %+v, %v", pkg, err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	wanted := map[string]digest.Digest{"zeros": digest.FromString(zeros)}
	if err := extract(t.Context(), bytes.NewReader(gzipOf(t, with)), 1<<20, wanted, root); !errors.Is(err, errTooLarge) {
		t.Errorf("an archive over the limit is written out: %v", err)
	}
}

// The budget is one for a package, of which a layer that is there many times takes its part once.
func TestManyLayers(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{ArchiveBytes: 2 << 20})
	once := tarOf(t, "m.onnx", string(model("m")), "a", strings.Repeat("a", 1<<20))
	same := make([][]byte, 3000)
	for i := range same {
		same[i] = once
	}
	begin := time.Now()
	if p := s.pushLayers(same...); p.Problem != "" || len(p.Models) != 1 {
		t.Errorf("the same: %d models, %q", len(p.Models), p.Problem)
	}
	took := time.Since(begin)
	begin = time.Now()
	if p := s.pushLayers(once); p.Problem != "" {
		t.Errorf("one: %q", p.Problem)
	}
	if one := time.Since(begin); took > 20*one+3*time.Second {
		t.Errorf("3000 layers took %v, one %v", took, one)
	}
	others := tarOf(t, "b", strings.Repeat("b", 1<<20))
	if p := s.pushLayers(once, gzipOf(t, others)); !strings.Contains(p.Problem, "too large to be looked through") {
		t.Errorf("two: %q", p.Problem)
	}
}

// Links and devices in an archive are no models, whatever they are called; they are neither followed nor written to the disk, and stay in the
// archive that is released.
func TestLinksAndDevicesInArchives(t *testing.T) {
	onnx := model("beside links")
	outside := filepath.Join(t.TempDir(), "outside.onnx")
	if err := os.WriteFile(outside, model("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "hard.onnx", Typeflag: tar.TypeLink, Linkname: outside},
		{Name: "climbing.onnx", Typeflag: tar.TypeLink, Linkname: "../../outside.onnx"},
		{Name: "symbolic.onnx", Typeflag: tar.TypeSymlink, Linkname: outside},
		{Name: "char.onnx", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5},
		{Name: "block.onnx", Typeflag: tar.TypeBlock, Devmajor: 8},
		{Name: "pipe.onnx", Typeflag: tar.TypeFifo},
		{Name: "folder", Typeflag: tar.TypeSymlink, Linkname: filepath.Dir(outside)},
		{Name: "m.onnx", Mode: 0o644, Size: int64(len(onnx))},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(onnx); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir(), Limits{})
	d, p := s.pushLayer(b.Bytes())
	if p.Problem != "" || len(p.Models) != 1 || p.Models[0].Name != "m.onnx" {
		t.Fatalf("%+v", p)
	}
	dir := t.TempDir()
	if _, err := s.g.Fetch(t.Context(), repo, d, dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "m.onnx" || !entries[0].Type().IsRegular() {
		t.Errorf("written out: %v, %v", entries, err)
	}
	path, sanitized := sanitize(t)
	released, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: d, Replace: map[string]string{p.Models[0].Digest: path}})
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal([]byte(s.expect(http.StatusOK, "GET", "/v2/"+repo+"/manifests/"+released.Digest.String(), nil).body), &m); err != nil {
		t.Fatal(err)
	}
	got := []byte(s.expect(http.StatusOK, "GET", "/v2/"+repo+"/blobs/"+m.Layers[0].Digest.String(), nil).body)
	head := b.Len() - 1024 - (len(onnx)+511)/512*512 - 512 // what comes before the header of the model
	if !bytes.Equal(got[:head], b.Bytes()[:head]) || !bytes.Contains(got, sanitized) || bytes.Contains(got, []byte("secret")) {
		t.Error("the links of the archive changed, or the model did not")
	}
}

// Archives of very many files, of very deep folders, of very many models, and of names that contradict each other again and again are looked through in the
// time that their size takes, and what is said of them is short.
func TestCrowdedArchives(t *testing.T) {
	onnx := string(model("m"))
	many := func(n int, name func(i int) string, content string) []string {
		var files []string
		for i := range n {
			files = append(files, name(i), content)
		}
		return files
	}
	in := func(folder string) func(int) string { return func(i int) string { return fmt.Sprint(folder, i) } }
	deep := strings.Repeat("d/", maxName/2-4)
	s := serve(t, t.TempDir(), Limits{})
	for name, c := range map[string]struct {
		files   []string
		models  int
		problem string
	}{
		"deep folders":           {append(many(1000, in(deep), ""), "m.onnx", onnx), 1, ""},
		"a long name":            {[]string{"m.onnx", onnx, strings.Repeat("x", maxName+1), ""}, 1, ""},
		"a long name of a model": {[]string{strings.Repeat("x", maxName) + ".onnx", onnx}, 0, "not a safe relative path"},
		"as many models":         {many(maxArchivedModels, func(i int) string { return fmt.Sprint(i, ".onnx") }, onnx), maxArchivedModels, ""},
		"too many models":        {many(maxArchivedModels+1, func(i int) string { return fmt.Sprint(i, ".onnx") }, onnx), 0, "it has more than 1024 models"},
		"files and folders":      {append(many(500, func(i int) string { return "d" + strings.Repeat("/d", i) }, ""), "m.onnx", onnx), 1, "and 124740 more"},
	} {
		t.Run(name, func(t *testing.T) {
			d, p := s.pushLayer(gzipOf(t, tarOf(t, c.files...)))
			if len(p.Models) != c.models || !strings.Contains(p.Problem, c.problem) || (p.Problem == "") != (c.problem == "") || len(p.Problem) > 8<<10 {
				t.Errorf("%d models, %.2000s", len(p.Models), p.Problem)
			}
			if name != "a long name" {
				return
			}
			if pkg, err := s.g.Fetch(t.Context(), repo, d, t.TempDir()); err != nil || len(pkg.Files) != 1 {
				t.Errorf("written out: %+v, %v", pkg, err)
			}
		})
	}
	// Whether the files are beside the model or not, looking through them takes about as long.
	took := map[string]time.Duration{}
	for _, m := range []string{"m.onnx", "m/m.onnx"} {
		archive := bytes.NewReader(tarOf(t, append([]string{m, onnx}, many(30_000, in("d/"), "")...)...))
		begin := time.Now()
		files, err := listArchive(archive, 1<<40)
		if took[m] = time.Since(begin); err != nil || len(files) != map[string]int{"m.onnx": 30_001, "m/m.onnx": 1}[m] {
			t.Fatalf("%s: %d files, %v", m, len(files), err)
		}
	}
	if took["m/m.onnx"] > 5*took["m.onnx"]+time.Second {
		t.Errorf("%v", took)
	}
}

// TestExtractVerifies: what comes out of an archive is what was listed.
func TestExtractVerifies(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	archive := tarOf(t, "a/b", "content")
	for want, wrong := range map[string]error{"content": nil, "other": ErrDigest} {
		err := extract(t.Context(), bytes.NewReader(archive), 1<<20, map[string]digest.Digest{"a/b": digest.FromString(want)}, root)
		if !errors.Is(err, wrong) {
			t.Errorf("listed as %q: %v", want, err)
		}
	}
}

// TestSparseFiles: programs differ in how they read sparse files, so an archive with one is not taken, whether it is the model or not.
func TestSparseFiles(t *testing.T) {
	sparse := func(name, content string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatGNU}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		head := b.Bytes()[:512] // archive/tar writes none: the old GNU format has the map of the file in the header
		head[156] = tar.TypeGNUSparse
		copy(head[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, len(content))) // first piece: offset, length
		copy(head[483:], fmt.Sprintf("%011o\x00", len(content)))             // length of the whole
		copy(head[148:], "        ")
		sum := 0
		for _, c := range head {
			sum += int(c)
		}
		copy(head[148:], fmt.Sprintf("%06o\x00 ", sum))
		return b.Bytes()
	}
	onnx := string(model("m"))
	if _, err := listArchive(bytes.NewReader(sparse("m.onnx", onnx)), 1<<20); err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Errorf("a sparse model: %v", err)
	}
	data := sparse("w.bin", "weights")
	end := len(data) - 1024 // without the end of the archive
	if _, err := listArchive(bytes.NewReader(append(data[:end:end], tarOf(t, "m.onnx", onnx)...)), 1<<20); err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Errorf("beside a model: %v", err)
	}
}
