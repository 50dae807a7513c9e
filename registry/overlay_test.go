package registry

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// external is a model whose weights are in a file beside it.
func external(name, location string) []byte {
	entry := concat(field(1, []byte("location")), field(2, []byte(location)))
	tensor := concat(field(8, []byte("w")), field(13, entry), protowire.AppendVarint(protowire.AppendTag(nil, 14, protowire.VarintType), 1))
	return concat(model(name)[:2], field(7, concat(field(2, []byte(name)), field(5, tensor))), field(8, []byte{0x10, 17}))
}

// pushLayers pushes an image of tar layers, and returns what the admitter is told.
func (s *server) pushLayers(layers ...[]byte) Push {
	s.Helper()
	config := s.putBlob(repo, []byte("{}"))
	config.MediaType = ocispec.MediaTypeImageConfig
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config}
	m.SchemaVersion = 2
	for i, layer := range layers {
		if i > 0 && bytes.Equal(layer, layers[i-1]) {
			m.Layers = append(m.Layers, m.Layers[i-1])
			continue
		}
		m.Layers = append(m.Layers, titled(s.putBlob(repo, layer), ocispec.MediaTypeImageLayer, ""))
	}
	raw, err := json.Marshal(m)
	if err != nil {
		s.Fatal(err)
	}
	s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v1", bytes.NewReader(raw), "Content-Type", ocispec.MediaTypeImageManifest, "X-Test-Identity", pusher)
	return s.desk.last(s.T)
}

// tarLink is a link in a tar archive.
func tarLink(kind byte, name, target string) []byte {
	return tarEntry(name, "", ustar, at(156, string(kind)), at(157, target))
}

// What would bring back a model or its external data once an image is extracted keeps it in quarantine; what only stands beside does not.
func TestReplacedModelsStayReplaced(t *testing.T) {
	file := func(name, content string) []byte { return tarEntry(name, content, ustar) }
	folder := func(name string) []byte { return tarEntry(name, "", ustar, at(156, "5")) }
	onnx := string(external("net", "net.data"))
	models := concat(file("models/net.onnx", onnx), file("models/net.data", "pushed"))
	const second, folders, over, deletes = "takes the place of a model or of its external data", "takes the place of the folder", "written over a link", "deletes a model"
	for name, c := range map[string]struct {
		layers  [][]byte
		problem string // "" is none
	}{
		"other layers":               {[][]byte{concat(folder("models"), file("etc/passwd", "root")), models, concat(folder("models"), file("etc/passwd", "other"), file("models/README", "x"))}, ""},
		"other files of this name":   {[][]byte{file("other/net.data", "a"), models, file("net.data", "b")}, ""},
		"links elsewhere":            {[][]byte{concat(tarLink('2', "bin", "usr/bin"), tarLink('2', "usr/x", "."), file("bin/sh", "x"), file("usr/x/x/y", "y")), models}, ""},
		"links to a model":           {[][]byte{concat(models, tarLink('2', "models/latest.onnx", "net.onnx"), tarLink('2', "m", "/models"), tarLink('1', "models/w", "models/net.data"))}, ""},
		"deleted elsewhere":          {[][]byte{models, concat(file("etc/.wh.passwd", ""), file("var/.wh..wh..opq", ""), file("models/.wh.other", ""))}, ""},
		"data in a second layer":     {[][]byte{models, file("models/net.data", "pushed")}, second},
		"data in a layer before":     {[][]byte{file("models/net.data", "pushed"), models}, second},
		"data in a zstd layer":       {[][]byte{models, zstdOf(t, file("models/net.data", "pushed"))}, second},
		"absolute":                   {[][]byte{concat(models, file("/models/net.data", "pushed"))}, second},
		"climbing":                   {[][]byte{concat(models, file("../a/../models/net.data", "pushed"))}, second},
		"in other letters":           {[][]byte{concat(models, file("Models/NET.data", "pushed"))}, second},
		"by backslash":               {[][]byte{concat(models, file(`models\net.data`, "pushed"))}, second},
		"odd mode":                   {[][]byte{concat(models, tarEntry("models/net.onnx", onnx, at(100, "0140644\x00")))}, second},
		"linked folder":              {[][]byte{concat(models, tarLink('2', "m", "models"), file("m/net.data", "pushed"))}, second},
		"linked folder, by a layer":  {[][]byte{concat(tarLink('2', "a", "/x/../b"), tarLink('2', "b", "./models/")), models, file("a/net.data", "pushed")}, second},
		"climbing from a link":       {[][]byte{concat(tarLink('2', "a", "models/deep"), models, file("a/../net.data", "pushed"))}, second},
		"a symbolic link":            {[][]byte{concat(models, file("w", "pushed"), tarLink('2', "models/net.data", "../w"))}, second},
		"a hard link":                {[][]byte{models, concat(file("w", "pushed"), tarLink('1', "models/net.data", "w"))}, second},
		"over a hard link":           {[][]byte{concat(models, tarLink('1', "w", "models/net.data"), file("w", "pushed"))}, over},
		"over a symbolic link":       {[][]byte{concat(models, tarLink('2', "d/w", "../models/net.data")), file("d/w", "pushed")}, over},
		"over links to links":        {[][]byte{concat(models, tarLink('2', "models/a", "b"), tarLink('2', "models/b", "net.onnx"), file("models/a", "pushed"))}, over},
		"another folder":             {[][]byte{models, concat(tarLink('2', "models", "other"), file("other/net.data", "pushed"))}, folders},
		"a file for the folder":      {[][]byte{models, file("models", "")}, folders},
		"linked from elsewhere":      {[][]byte{concat(models, tarLink('1', "other/net.onnx", "models/net.onnx"), file("other/net.data", "pushed"))}, "from another folder"},
		"deleted":                    {[][]byte{models, file("models/.wh.net.data", "")}, deletes},
		"folder deleted":             {[][]byte{models, file(".wh.models", "")}, deletes},
		"folder emptied":             {[][]byte{models, file("models/.wh..wh..opq", "")}, deletes},
		"root emptied":               {[][]byte{models, file(".wh..wh..opq", "")}, deletes},
		"links to themselves":        {[][]byte{concat(tarLink('2', "man/_Exit.2", "_exit.2"), file("man/_exit.2", "x"), file("man/_Exit.2", "x"), tarLink('2', "a", "b"), tarLink('2', "b", "a"), file("a/b", "x")), models}, ""},
		"links without end":          {[][]byte{models, concat(tarLink('2', "a", "a/a"), file("a/b", "x"))}, "too many links"},
		"a model that is cut":        {[][]byte{concat(models, file("other.onnx", onnx[:20]))}, "cannot be read"},
		"data in a folder of others": {[][]byte{concat(file("m.onnx", string(external("m", "d/w"))), file("d/w", "pushed")), concat(tarLink('2', "e", "d"), file("e/w", "pushed"))}, second},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, t.TempDir(), Limits{}).pushLayers(c.layers...)
			if len(p.Models) == 0 || (p.Problem == "") != (c.problem == "") || !strings.Contains(p.Problem, c.problem) {
				t.Errorf("%d models, %q, want %q", len(p.Models), p.Problem, c.problem)
			}
		})
	}
}

// Where links lead to is found in time, however many they are.
func TestManyLinks(t *testing.T) {
	o := newOverlay()
	for i := range 1000 {
		h := &tar.Header{Name: "same", Typeflag: tar.TypeSymlink, Linkname: fmt.Sprint("same/", i)}
		if err := o.put(h, []string{"same"}); err != nil && !strings.Contains(err.Error(), "too many links") {
			t.Fatal(err)
		}
	}
	if _, err := o.follow(strings.Repeat("same/", 500), true); err == nil {
		t.Error("followed")
	}
}
