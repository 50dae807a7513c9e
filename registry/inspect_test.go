package registry

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"grindstone/internal/shared"
)

func inspectLayer(t *testing.T, content []byte) (finding, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	budget := int64(1 << 30)
	return inspect(f, &budget)
}

func inspectBytes(t *testing.T, content []byte) finding {
	t.Helper()
	found, err := inspectLayer(t, content)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func field(number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
}

// overlong is a number of ten bytes, of which bits beyond the 64th are set, behind others: protobuf drops these bits.
func overlong(before ...byte) []byte {
	return append(before, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstdOf(t *testing.T, content []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(content, nil)
}

func TestInspect(t *testing.T) {
	onnx := model("hidden")
	other := string(bytes.Repeat([]byte("some text\n"), 300))
	isModel := finding{model: true}
	in := func(name string) finding { return finding{inside: name} }
	as := func(name, format string) finding { return finding{other: OtherModel{name, format}} }
	tensors := append([]byte{16, 0, 0, 0, 0, 0, 0, 0}, `{"w":{"dtype":"F32"}}`...)
	for name, c := range map[string]struct {
		content []byte
		want    finding
	}{
		"model":                 {onnx, isModel},
		"unknown field before":  {concat(field(1000, []byte("decoy")), onnx), isModel},
		"unknown field after":   {concat(onnx, field(1000, bytes.Repeat([]byte{0xff}, 5000))), isModel},
		"long tag":              {concat([]byte{0x88, 0x80, 0x00, 8}, onnx[2:]), isModel},
		"tag of 35 bits":        {concat(onnx[:2], []byte{0xba, 0x80, 0x80, 0x80, 0x10}, onnx[3:]), isModel},
		"long length":           {concat(onnx[:3], []byte{onnx[3] | 0x80, 0x80, 0x80, 0x80, 0x00}, onnx[4:]), isModel},
		"number of 70 bits":     {concat(overlong(0x28), onnx), isModel},
		"tag of 70 bits":        {concat(overlong(), []byte{1, 2, 3, 4}, onnx), isModel},
		"in the graph":          {concat(onnx[:2], field(7, concat(overlong(0x50), field(1, nil)))), isModel},
		"malformed after":       {concat(field(7, concat(field(1, nil), field(12, nil))), []byte{7}), isModel},
		"malformed inside":      {concat(onnx[:2], field(7, concat(field(1, nil), field(12, nil), []byte{7}))), finding{}},
		"number of 11 bytes":    {concat([]byte{0x28}, bytes.Repeat([]byte{0x80}, 10), onnx), finding{}},
		"group":                 {concat([]byte{0xfb, 0x07}, field(1, []byte("x")), []byte{0xfc, 0x07}, onnx), isModel},
		"too many fields":       {concat(bytes.Repeat([]byte{0x50, 1}, maxFields+1)), isModel},
		"cut":                   {onnx[:len(onnx)-1], finding{}},
		"empty":                 {nil, finding{}},
		"text":                  {[]byte(other), finding{}},
		"no graph":              {concat(onnx[:2], field(8, []byte{0x10, 17})), finding{}},
		"graph is text":         {concat(onnx[:2], field(7, []byte("not protobuf"))), finding{}},
		"tar":                   {tarOf(t, "README", other, "models/1/weights", string(onnx)), in("models/1/weights")},
		"tar, by name":          {tarOf(t, "a/M.Onnx", "?"), in("a/M.Onnx")},
		"tar without":           {tarOf(t, "README", other), finding{}},
		"gzip":                  {gzipOf(t, onnx), in("the expanded content")},
		"tar in gzip":           {gzipOf(t, tarOf(t, "m", string(onnx))), in("m")},
		"text in gzip":          {gzipOf(t, []byte(other)), finding{}},
		"zstd":                  {zstdOf(t, onnx), in("the expanded content")},
		"tar in zstd":           {zstdOf(t, tarOf(t, "m.onnx", "")), in("m.onnx")},
		"zip, last in a tar":    {tarOf(t, "a.jar", string(zipOf(t, "x.onnx", nil))), finding{}},
		"zip":                   {zipOf(t, "data/0", onnx), in("data/0")},
		"zip, by name":          {zipOf(t, "data/x.onnx", nil), in("data/x.onnx")},
		"zip without":           {zipOf(t, "data/0", []byte(other)), finding{}},
		"safetensors":           {tensors, as("", "safetensors")},
		"safetensors in a tar":  {tarOf(t, "README", other, "w", string(tensors)), as("w", "safetensors")},
		"gguf in gzip":          {gzipOf(t, []byte("GGUF\x03\x00\x00\x00")), as("", "gguf")},
		"pickle":                {[]byte("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}."), as("", "pickle")},
		"hdf5":                  {[]byte("\x89HDF\r\n\x1a\n more"), as("", "hdf5")},
		"tflite":                {[]byte("\x1c\x00\x00\x00TFL3....."), as("", "tflite")},
		"pytorch, in its zip":   {zipOf(t, "archive/data.pkl", []byte("?")), as("archive/data.pkl", "pickle")},
		"both in a tar":         {tarOf(t, "m.pt", "?", "m.onnx", "?"), finding{inside: "m.onnx", other: OtherModel{"m.pt", "pytorch"}}},
		"bytes that end in tar": {append([]byte(other), tarOf(t, "m.onnx", "")...), finding{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := inspectBytes(t, c.content)
			got.tar = false
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// What is a model and an archive at once is neither: whoever replaces the weights of the one leaves the other as it is.
func TestModelsThatAreArchives(t *testing.T) {
	onnx, hidden := model("seen"), string(model("hidden"))
	skip := func(length int) []byte { // the head of an unknown field
		return binary.AppendUvarint(protowire.AppendTag(nil, 1000, protowire.BytesType), uint64(length))
	}
	rest := concat(tarEntry("m.onnx", hidden), tarEnd)
	archive := concat(tarEntry(string(skip(tarBlock+len(rest)-4)), "", ustar), rest)
	for name, layer := range map[string][]byte{
		"tar":  concat(archive, onnx),
		"zstd": concat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x7f, 1, 2, 3, 4}, onnx), // field 5 is the model's version
		"zip":  concat(onnx, field(1000, zipOf(t, "m.onnx", []byte(hidden)))),
	} {
		if !isONNX(bytes.NewReader(layer), int64(len(layer))) {
			t.Errorf("%s: no model", name)
		}
		if found, err := inspectLayer(t, layer); err == nil || !strings.Contains(err.Error(), "an ONNX model as well") {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
}

// An archive that expands beyond the budget is not waited for.
func TestInspectBudget(t *testing.T) {
	// A field of a million bytes that has to be read over.
	large := string(field(3, make([]byte, 1<<20)))
	for name, content := range map[string][]byte{
		"gzip":        gzipOf(t, []byte(large)),
		"zstd":        zstdOf(t, []byte(large)),
		"tar":         tarOf(t, "a", large),
		"tar in gzip": gzipOf(t, tarOf(t, "a", large)),
		"zip":         zipOf(t, "a", []byte(large)),
	} {
		path := filepath.Join(t.TempDir(), "layer")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		budget := int64(1 << 19)
		if found, err := inspect(f, &budget); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %+v, %v, want errTooLarge", name, found, err)
		}
	}
}

// sparseTar returns an archive of one file in GNU's sparse format: a few bytes that begin a protobuf field of the given
// size, and a hole of that size.
func sparseTar(size int64) []byte {
	data := binary.AppendUvarint([]byte{0x1a}, uint64(size))
	base256 := func(field []byte, v int64) {
		field[0] = 0x80
		binary.BigEndian.PutUint64(field[len(field)-8:], uint64(v))
	}
	h := make([]byte, 512)
	copy(h, "sparse")
	copy(h[100:], "0000644\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", len(data)))
	h[156] = tar.TypeGNUSparse
	copy(h[257:], "ustar  \x00")
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, len(data)))
	base256(h[483:495], size)
	sum := 8 * int(' ')
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return concat(h, data, make([]byte, 512-len(data)), make([]byte, 1024))
}

// Other files that packages hold are not taken for models.
func TestInspectOtherContent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		content := make([]byte, random.IntN(4096))
		for j := range content {
			content[j] = byte(random.UintN(256))
			if i%2 == 0 { // text
				content[j] = ' ' + content[j]%('~'-' '+1)
			}
		}
		if isONNX(bytes.NewReader(content), int64(len(content))) {
			t.Errorf("taken for a model: %q", content)
		}
	}
	document, err := json.Marshal(map[string]any{"architecture": strings.Repeat("resnet ", 200), "sizes": []int{1, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	if isONNX(bytes.NewReader(document), int64(len(document))) {
		t.Error("JSON is taken for a model")
	}
}

func TestInspectRealModels(t *testing.T) {
	for _, name := range []string{"cntk-mnist.onnx", "nad-wrn16-badnet.onnx", "vnncomp-cifar10_medium_nhwc.onnx", "vnncomp-cifar_base_kw.onnx", "vnncomp-resnet_2b.onnx"} {
		content, err := os.ReadFile(shared.Path(t, "models", name))
		if err != nil {
			t.Fatal(err)
		}
		if got := inspectBytes(t, content); got != (finding{model: true}) {
			t.Errorf("%s: %+v", name, got)
		}
		if got := inspectBytes(t, gzipOf(t, content)); got.inside == "" {
			t.Errorf("%s in gzip: %+v", name, got)
		}
	}
}

func FuzzIsONNX(f *testing.F) {
	f.Add(model("seed"))
	f.Add([]byte("text"))
	f.Add(concat(overlong(0x28), model("seed")))
	f.Add(concat(field(7, concat(field(1, nil), field(12, nil))), []byte{7}))
	f.Fuzz(func(t *testing.T, content []byte) {
		// The same with and without seeking and a known size.
		seeking := isONNX(bytes.NewReader(content), int64(len(content)))
		streaming := isONNX(bytes.NewBuffer(content), -1)
		if seeking != streaming {
			t.Fatalf("seeking %t, streaming %t", seeking, streaming)
		}
	})
}
