package integration

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"grindstone/sanitize/onnx"
	"grindstone/webhook"
)

// TestBadPushes pushes what no sanitizer can work on to one server with the real sanitizer. Each is held for one reason, with words that
// say what is wrong with it; the server stays small, and serves the next good model.
func TestBadPushes(t *testing.T) {
	needRuntime(t)
	config := writeConfig(t, t.TempDir(), "trainer: {steps: 120, batch: 32, learning_rate: 0.05}\n")
	s := startServer(t, "--config", config, "--data", tinyImages(t))
	good := tiny{name: "good"}.file(t)
	renamed := func(name string, content []byte) layerFile { return layerFile{name, good.mediaType, content} }

	bad := map[string]struct {
		files  []layerFile
		reason webhook.Reason
		words  []string
	}{
		"no-onnx":   {[]layerFile{renamed("model.onnx", []byte("I am no model"))}, webhook.ReasonInvalidModel, []string{"model.onnx"}},
		"truncated": {[]layerFile{renamed("model.onnx", good.content[:len(good.content)/2])}, webhook.ReasonInvalidModel, []string{"model.onnx"}},
		"untrainable": {[]layerFile{tiny{det: true}.file(t)}, webhook.ReasonUnsupported,
			[]string{`"det"`, "Det"}},
		"external": {[]layerFile{tiny{external: "weights.bin"}.file(t)}, webhook.ReasonInvalidModel, []string{"model.onnx", `"conv.weight"`, `"weights.bin"`}},
		"boaster": {[]layerFile{renamed("model.onnx", withInitializer(t, good.content, "huge", []uint64{2, 1024, 1024, 256}, 1024))},
			webhook.ReasonInvalidModel, []string{"model.onnx", `"huge"`, "536870912 elements"}},
		"boaster-outside": {[]layerFile{tiny{external: "weights.bin"}.file(t), renamed("weights.bin", []byte("short"))},
			webhook.ReasonInvalidModel, []string{`"weights.bin"`, "5 bytes"}},
		"at-chance": {[]layerFile{tiny{shift: 1}.file(t)}, webhook.ReasonAccuracy, []string{"at chance", "alphabetical"}},
		"other-format": {[]layerFile{{"model.safetensors", "application/octet-stream", []byte("\x10\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\":{}")}},
			webhook.ReasonUnsupported, []string{"model.safetensors", "format safetensors", "ONNX"}},
		"one-of-two": {[]layerFile{renamed("a.onnx", good.content), renamed("b.onnx", tiny{det: true}.file(t).content)}, webhook.ReasonUnsupported, []string{"Det"}},
		"one-file-of-weights": {[]layerFile{renamed("a.onnx", tiny{name: "a", external: "weights.bin"}.file(t).content),
			renamed("b.onnx", tiny{name: "b", external: "weights.bin"}.file(t).content), renamed("weights.bin", tinyWeights(t, "conv.weight"))},
			webhook.ReasonSeveralModels, []string{"b.onnx", `"weights.bin"`}},
		"archive": {[]layerFile{renamed("model.tar", inTar(t, good)[:1000])}, webhook.ReasonNoModel, []string{"cannot be read in full", "damaged"}},
	}
	digests := map[string]string{}
	for name, push := range bad {
		digests[name] = s.pushCrane("bad/"+name, "v1", push.files...)
	}
	for name, want := range bad {
		t.Run(name, func(t *testing.T) {
			a := s.await("bad/"+name, 10*time.Minute)
			t.Logf("%s: %s", a.Reason, a.Message)
			if a.State != webhook.Held || a.Reason != want.reason {
				t.Errorf("%s %s; want held %s", a.State, a.Reason, want.reason)
			}
			for _, word := range want.words {
				if !strings.Contains(a.Message, word) {
					t.Errorf("the message does not name %s", word)
				}
			}
			if strings.Contains(a.Message, s.dir) {
				t.Errorf("the message tells clients the server's folders")
			}
			for reference, status := range map[string]int{"v1": http.StatusNotFound, digests[name]: http.StatusForbidden} {
				var answer string
				if got := s.get("/v2/bad/"+name+"/manifests/"+reference, &answer); got != status || !strings.Contains(answer, a.ID) {
					t.Errorf("%s is answered %d: %s", reference, got, answer)
				}
			}
			if _, err := os.Stat(filepath.Join(s.dir, "work", a.ID)); err == nil {
				time.Sleep(time.Second) // the folder goes after the end is recorded
				if _, err := os.Stat(filepath.Join(s.dir, "work", a.ID)); err == nil {
					t.Error("the scratch folder is still there")
				}
			}
		})
	}
	if peak := s.peakMemory(); peak > 300<<20 {
		t.Errorf("the server took %d MiB", peak>>20)
	} else {
		t.Logf("the server took %d MiB", peak>>20)
	}

	wide := tiny{name: "good", features: 48}.file(t) // with 8, one secret in a hundred costs a quarter of the accuracy
	s.pushCrane("models/good", "v1", wide)
	if a := s.await("models/good", 10*time.Minute); a.State != webhook.Released {
		t.Errorf("the next good model: %s %s: %s", a.State, a.Reason, a.Message)
	}
	out, err := s.grindstone("verify", s.address+"/models/good:v1", "--key", filepath.Join(s.dir, "keys", "grindstone.pub"))
	if err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	var metrics string
	s.get("/metrics", &metrics)
	counts := map[webhook.Reason]int{}
	for _, push := range bad {
		counts[push.reason]++
	}
	for reason, n := range counts {
		if line := fmt.Sprintf("grindstone_admissions{reason=%q,state=\"held\"} %d\n", reason, n); !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// withInitializer adds a float tensor to a model's graph: its shape, and as many bytes of data as are really there.
func withInitializer(t *testing.T, model []byte, name string, shape []uint64, size int) []byte {
	t.Helper()
	bytesField := func(to []byte, num protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(to, num, protowire.BytesType), value)
	}
	var tensor, out []byte
	for _, d := range shape {
		tensor = protowire.AppendVarint(protowire.AppendTag(tensor, 1, protowire.VarintType), d)
	}
	tensor = protowire.AppendVarint(protowire.AppendTag(tensor, 2, protowire.VarintType), uint64(onnx.Float))
	tensor = bytesField(bytesField(tensor, 8, []byte(name)), 9, make([]byte, size))
	for rest := model; len(rest) > 0; {
		num, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		field := rest[:n]
		rest = rest[n:]
		if num == 7 { // ModelProto.graph; 5 is GraphProto.initializer
			_, _, tag := protowire.ConsumeTag(field)
			graph, _ := protowire.ConsumeBytes(field[tag:])
			field = bytesField(nil, 7, bytesField(bytes.Clone(graph), 5, tensor))
		}
		out = append(out, field...)
	}
	return out
}

func inTar(t *testing.T, f layerFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(f.content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
