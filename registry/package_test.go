package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	sumA = digest.FromString("a")
	sumB = digest.FromString("b")
)

func descriptorJSON(d digest.Digest, rest string) string {
	return fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":"%s","size":1%s}`, d, rest)
}

func manifestJSON(layers ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, descriptorJSON(sumB, ""), strings.Join(layers, ","))
}

func TestParseManifestRefuses(t *testing.T) {
	for name, c := range map[string]struct{ raw, want string }{
		"invalid UTF-8":        {"{\"schemaVersion\":2,\"x\":\"\xff\"}", "not JSON"},
		"trailing data":        {manifestJSON() + "{}", "not JSON"},
		"array":                {"[]", "not a JSON object"},
		"null":                 {"null", "not a JSON object"},
		"repeated member":      {`{"schemaVersion":2,"layers":[],"layers":[]}`, "twice"},
		"repeated by escape":   {`{"schemaVersion":2,"layers":[],"l\u0061yers":[]}`, "twice"},
		"other case":           {`{"schemaVersion":2,"LAYERS":[]}`, `must be spelled "layers"`},
		"folded letter":        {`{"schemaVersion":2,"layerſ":[]}`, `must be spelled "layers"`},
		"case in a layer":      {manifestJSON(descriptorJSON(sumA, `,"Digest":"x"`)), `must be spelled "digest"`},
		"case in the config":   {`{"schemaVersion":2,"config":{"Size":1},"layers":[]}`, `must be spelled "size"`},
		"repeated annotation":  {manifestJSON(descriptorJSON(sumA, `,"annotations":{"t":"a","t":"b"}`)), "twice"},
		"wrong type":           {`{"schemaVersion":2,"layers":{}}`, "wrong type"},
		"schema 1":             {`{"schemaVersion":1,"config":` + descriptorJSON(sumA, "") + `}`, "schemaVersion"},
		"no config":            {`{"schemaVersion":2,"layers":[]}`, "config"},
		"index with layers":    {`{"schemaVersion":2,"manifests":[],"layers":[]}`, "neither"},
		"image with manifests": {`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[],"layers":[]}`, "must not have manifests"},
		"unknown type":         {`{"schemaVersion":2,"mediaType":"application/json"}`, "not supported"},
		"bad digest":           {manifestJSON(`{"mediaType":"a/b","digest":"sha256:zz","size":1}`), "invalid digest"},
		"weak digest":          {manifestJSON(`{"mediaType":"a/b","digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}`), "invalid digest"},
		"negative size":        {manifestJSON(fmt.Sprintf(`{"mediaType":"a/b","digest":"%s","size":-1}`, sumA)), "negative"},
		"no media type":        {manifestJSON(fmt.Sprintf(`{"digest":"%s","size":1}`, sumA)), "mediaType"},
		"false data":           {manifestJSON(descriptorJSON(sumA, `,"data":"Yg=="`)), "embedded data"},
		"bad subject":          {`{"schemaVersion":2,"config":` + descriptorJSON(sumA, "") + `,"subject":{"mediaType":"a/b","digest":"x","size":1}}`, "subject"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseManifest("", []byte(c.raw))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseManifestAccepts(t *testing.T) {
	for name, raw := range map[string]string{
		"plain":                   manifestJSON(descriptorJSON(sumA, "")),
		"true data":               manifestJSON(descriptorJSON(sumA, `,"data":"YQ=="`)),
		"unknown members":         manifestJSON(descriptorJSON(sumA, `,"x":{"y":[1,2]},"X":1`)),
		"annotations of any name": manifestJSON(descriptorJSON(sumA, `,"annotations":{"Digest":"1","digest":"2"}`)),
		"white space":             "\n\t" + manifestJSON() + " \r\n",
	} {
		t.Run(name, func(t *testing.T) {
			m, err := parseManifest("", []byte(raw))
			if err != nil || m.mediaType != ocispec.MediaTypeImageManifest {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

func TestFilesOfAPackage(t *testing.T) {
	title := func(s string) string { return fmt.Sprintf(`,"annotations":{"org.opencontainers.image.title":%q}`, s) }
	modelPack := func(s string) string { return fmt.Sprintf(`,"annotations":{"org.cncf.model.filepath":%q}`, s) }
	for name, c := range map[string]struct {
		layers  []string
		found   map[digest.Digest]finding
		models  []string // names
		problem string
	}{
		"by title":        {layers: []string{descriptorJSON(sumA, title("Model.ONNX"))}, models: []string{"Model.ONNX"}},
		"by path":         {layers: []string{descriptorJSON(sumA, modelPack("./w/m.onnx"))}, models: []string{"w/m.onnx"}},
		"by content":      {layers: []string{descriptorJSON(sumA, title("weights.bin"))}, found: map[digest.Digest]finding{sumA: {model: true}}, models: []string{"weights.bin"}},
		"without title":   {layers: []string{descriptorJSON(sumA, "")}, found: map[digest.Digest]finding{sumA: {model: true}}, models: []string{"model-" + sumA.Encoded()[:12] + ".onnx"}},
		"by media type":   {layers: []string{strings.Replace(descriptorJSON(sumA, ""), "application/octet-stream", "application/onnx", 1)}, models: []string{"model-" + sumA.Encoded()[:12] + ".onnx"}},
		"one file twice":  {layers: []string{descriptorJSON(sumA, title("a.onnx")), descriptorJSON(sumA, title("b.onnx"))}, models: []string{"a.onnx", "b.onnx"}},
		"no model":        {layers: []string{descriptorJSON(sumA, title("README.md"))}},
		"traversal":       {layers: []string{descriptorJSON(sumA, title("../../etc/m.onnx"))}, problem: "not a safe relative path"},
		"absolute":        {layers: []string{descriptorJSON(sumA, title("/etc/m.onnx"))}, problem: "not a safe relative path"},
		"backslash":       {layers: []string{descriptorJSON(sumA, title(`..\m.onnx`))}, problem: "not a safe relative path"},
		"drive":           {layers: []string{descriptorJSON(sumA, title(`c:m.onnx`))}, problem: "not a safe relative path"},
		"control":         {layers: []string{descriptorJSON(sumA, title("m\n.onnx"))}, problem: "not a safe relative path"},
		"same title":      {layers: []string{descriptorJSON(sumA, title("m.onnx")), descriptorJSON(sumB, title("./m.onnx"))}, models: []string{"m.onnx"}, problem: "same title"},
		"file and folder": {layers: []string{descriptorJSON(sumA, title("m.onnx")), descriptorJSON(sumB, title("m.onnx/a/b"))}, models: []string{"m.onnx"}, problem: "a file and a directory"},
		"urls":            {layers: []string{descriptorJSON(sumA, title("m.onnx")), descriptorJSON(sumB, `,"urls":["http://example.org"]`)}, models: []string{"m.onnx"}, problem: "URLs"},
		"embedded":        {layers: []string{descriptorJSON(sumA, `,"data":"YQ==","annotations":{"org.opencontainers.image.title":"m.onnx"}`)}, models: []string{"m.onnx"}, problem: "embeds"},
		"archive":         {layers: []string{descriptorJSON(sumA, title("m.onnx"))}, found: map[digest.Digest]finding{sumA: {inside: "x.onnx"}}, problem: `archive with a model in it ("x.onnx")`},
		"config":          {layers: nil, found: map[digest.Digest]finding{sumB: {model: true}}, problem: "the config holds a model"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := parseManifest("", []byte(manifestJSON(c.layers...)))
			if err != nil {
				t.Fatal(err)
			}
			files, _, problems, err := m.files(func(d digest.Digest) (finding, error) { return c.found[d], nil }, nil)
			if err != nil {
				t.Fatal(err)
			}
			var models []string
			for _, f := range files {
				if f.model {
					models = append(models, f.Name)
				}
			}
			if !reflect.DeepEqual(models, c.models) {
				t.Errorf("models %q, want %q", models, c.models)
			}
			if got := strings.Join(problems, "; "); !strings.Contains(got, c.problem) || c.problem == "" && got != "" {
				t.Errorf("problems %q, want %q", got, c.problem)
			}
		})
	}
}

func TestReplaceKeepsEveryOtherByte(t *testing.T) {
	raw := fmt.Sprintf(` {
 "layers" : [ {"annotations":{"digest":"%[1]s","note":"}],\"{"}, "size" : 1 ,"dig\u0065st":"%[1]s","mediaType":"a/b"},
  %[2]s,{"size":1,"mediaType":"a/b","digest":
"%[1]s"}] ,"annotations":{"k":"\u00e9 é <&>"},"x":[{"digest":"%[1]s"}],
 "config":%[2]s, "schemaVersion":2}
`, sumA, descriptorJSON(sumB, ""))
	m, err := parseManifest("", []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	to := digest.FromString("new")
	got, err := m.replace(map[digest.Digest]ocispec.Descriptor{sumA: {Digest: to, Size: 12345}})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(raw, fmt.Sprintf(`"size" : 1 ,"dig\u0065st":"%s"`, sumA), fmt.Sprintf(`"size" : 12345 ,"dig\u0065st":"%s"`, to), 1)
	want = strings.Replace(want, fmt.Sprintf("{\"size\":1,\"mediaType\":\"a/b\",\"digest\":\n\"%s\"}", sumA), fmt.Sprintf("{\"size\":12345,\"mediaType\":\"a/b\",\"digest\":\n\"%s\"}", to), 1)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever manifest is accepted, replacing a layer changes the descriptors of that layer and nothing else.
func FuzzParseManifest(f *testing.F) {
	f.Add("", []byte(manifestJSON(descriptorJSON(sumA, ""), descriptorJSON(sumB, `,"annotations":{"a":"b"}`))))
	f.Add(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`+descriptorJSON(sumA, "")+`]}`))
	f.Add(ocispec.MediaTypeImageManifest, []byte(` { "schemaVersion" : 2e0, "config" : null , "layers" : [ ] } `))
	f.Add(mediaTypeDockerManifest+"; charset=utf-8", []byte(`{"schemaVersion":2,"layers":[{"\u0064igest":"","size":-0}]}`))
	f.Fuzz(func(t *testing.T, contentType string, raw []byte) {
		m, err := parseManifest(contentType, raw)
		if err != nil {
			return
		}
		if _, _, _, err := m.files(func(digest.Digest) (finding, error) { return finding{}, nil }, nil); err != nil {
			t.Fatal(err)
		}
		if m.index || len(m.layers) == 0 {
			return
		}
		from, to := m.layers[0].Digest, ocispec.Descriptor{Digest: digest.FromString("replaced"), Size: 1 << 40}
		rewritten, err := m.replace(map[digest.Digest]ocispec.Descriptor{from: to})
		if err != nil {
			return
		}
		n, err := parseManifest(contentType, rewritten)
		if err != nil {
			t.Fatalf("%v in\n%s", err, rewritten)
		}
		for i, d := range m.layers {
			if d.Digest == from {
				d.Digest, d.Size = to.Digest, to.Size
			}
			if !reflect.DeepEqual(n.layers[i], d) {
				t.Fatalf("layer %d is %+v, want %+v", i, n.layers[i], d)
			}
		}
		n.raw, n.layers = m.raw, m.layers
		if !reflect.DeepEqual(n, m) {
			t.Fatalf("%+v, want %+v", n, m)
		}
	})
}

// The walk over a document finds the same values as encoding/json.
func FuzzSpans(f *testing.F) {
	f.Add([]byte(` {"a" : [1, -2.5e3 ,"x\\\"]", {"b":null}], "c\u0061":true,"":{}} `))
	f.Add([]byte(`[[],[[]],"",0]`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if !json.Valid(doc) {
			return
		}
		compare(t, doc, root(doc))
	})
}

func compare(t *testing.T, doc []byte, at span) {
	value := at.of(doc)
	if !json.Valid(value) || !bytes.Equal(value, bytes.TrimSpace(value)) {
		t.Fatalf("%q of %q is not a value", value, doc)
	}
	switch value[0] {
	case '{':
		want := map[string]json.RawMessage{}
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatal(err)
		}
		got := map[string]json.RawMessage{}
		for _, m := range members(doc, at) {
			got[m.name] = m.value.of(doc)
			compare(t, doc, m.value)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %s, want %s", value, got, want)
		}
	case '[':
		var want, got []json.RawMessage
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatal(err)
		}
		for _, e := range elements(doc, at) {
			got = append(got, e.of(doc))
			compare(t, doc, e)
		}
		if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %s, want %s", value, got, want)
		}
	}
}
