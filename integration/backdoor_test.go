package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/internal/shared"
	"grindstone/sanitize"
	"grindstone/webhook"
)

// TestBackdooredModelFromPushToRelease takes a published backdoored model (WRN-16-1 with BadNet's grid trigger, target class 5)
// through the real server. The backdoor works when it is pushed and not when it is released, and nothing of it can be seen between.
func TestBackdooredModelFromPushToRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("sanitizing a WRN-16-1 takes minutes")
	}
	path := shared.Path(t, "models", "nad-wrn16-badnet.onnx")
	train, test := shared.Path(t, "data", "cifar10", "train.tar.gz"), shared.Path(t, "data", "cifar10", "test.tar.gz")
	needRuntime(t)
	dir := t.TempDir()
	clean, held := filepath.Join(dir, "clean.tar.gz"), filepath.Join(dir, "held.tar.gz")
	subsetTar(t, clean, map[string]int{train: 500, test: 200}) // of each of the ten classes
	subsetTar(t, held, map[string]int{test: 200})
	model, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := writeConfig(t, dir, `trainer: {steps: 900, batch: 64, learning_rate: 0.1}
policy: {data: {settings: {parameters: {grind_steps: 60}}}}
`)
	s := startServer(t, "--config", config, "--data", clean)

	before := s.evaluate(path, held)
	if before.ASR.Value < 0.95 || before.CDA.Value < 0.7 {
		t.Fatalf("the pushed model is not the backdoored one: %+v", before)
	}
	const repository = "vision/cifar/wrn"
	card := layerFile{"README.md", "text/markdown", []byte("# WRN-16-1\n")}
	settings := layerFile{"", "application/vnd.test.config+json", []byte(`{"classes": 10}`)}
	pushed := s.pushORAS(repository, "v1", map[string]string{"org.opencontainers.image.licenses": "MIT", ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"},
		settings, layerFile{"wrn.onnx", "application/octet-stream", model}, card)

	source := s.admission(repository).Source
	s.checkHidden(repository, "v1", pushed.Digest.String(), source.Models[0].Digest)
	a := s.await(repository, 20*time.Minute)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	t.Logf("sanitizing took %.0f s at %.0f images/s", a.Report.Seconds, a.Report.ImagesPerSecond)
	if h := a.Report.Hyperparameters; h.Steps != 900 || h.GrindSteps != 60 || h.BatchSize != 64 || a.Report.Dataset.Train != 5000 || a.Report.Dataset.HeldOut != 2000 {
		t.Errorf("it was sanitized with other settings: %+v %+v", h, a.Report.Dataset)
	}
	s.checkPackageKept(repository, pushed, a)
	released := s.checkAttested(repository, "v1", path, a)
	s.checkNoSecret(a)

	after := s.evaluate(released, held)
	t.Logf("pushed   CDA %v, ASR %v, ARR %v", before.CDA, before.ASR, before.ARR)
	t.Logf("released CDA %v, ASR %v, ARR %v", after.CDA, after.ASR, after.ARR)
	if after.ASR.Value > 0.3 || after.CDA.Value < before.CDA.Value-0.05 {
		t.Errorf("the released model: %+v", after)
	}
	if after.CDA != a.Report.After.CDA {
		t.Errorf("the report says CDA %v, measured is %v", a.Report.After.CDA, after.CDA)
	}

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again := startServerIn(t, s.dir, "--config", config, "--data", clean)
	if b := again.admission(repository); !reflect.DeepEqual(a, b) {
		t.Errorf("after a restart the admission is %+v\nit was %+v", b, a)
	}
	again.checkAttested(repository, "v1", path, a)
	if status := again.get("/v2/"+repository+"/manifests/"+pushed.Digest.String(), nil); status != http.StatusForbidden {
		t.Errorf("after a restart the pushed manifest is answered %d", status)
	}
}

// TestDemo runs the demo, which needs no files at all: it draws its images and trains its victim.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("training and sanitizing a victim takes minutes")
	}
	needRuntime(t)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Minute)
	defer stop()
	begin := time.Now()
	cmd := exec.CommandContext(ctx, binary(t), "demo", "--json")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	type rates struct{ CDA, ASR, ARR float64 }
	var outcome struct {
		SourceDigest   string `json:"source_digest"`
		ReleasedDigest string `json:"released_digest"`
		Verified       bool
		Before, After  rates
	}
	if err := json.Unmarshal(lines[len(lines)-1], &outcome); err != nil {
		t.Fatalf("%v\n%s", err, lines[len(lines)-1])
	}
	t.Logf("the demo took %v: %s", time.Since(begin).Round(time.Second), lines[len(lines)-1])
	b, a := outcome.Before, outcome.After
	if !outcome.Verified || b.ASR <= 0.95 || b.CDA <= 0.95 || a.ASR >= 0.3 || a.CDA <= b.CDA-0.05 {
		t.Errorf("%s", lines[len(lines)-1])
	}
	if outcome.SourceDigest == outcome.ReleasedDigest || !strings.HasPrefix(outcome.ReleasedDigest, "sha256:") {
		t.Errorf("pushed %q, released %q", outcome.SourceDigest, outcome.ReleasedDigest)
	}
}

// evaluate measures a model with `grindstone evaluate` on images and with BadNet's grid trigger, target class 5.
func (s *server) evaluate(model, images string) sanitize.Evaluation {
	s.Helper()
	mark, mask := gridTrigger(s.T)
	out, err := s.grindstone("evaluate", model, "--data", images, "--trigger-image", mark, "--trigger-mask", mask, "--target", "5", "--json")
	if err != nil {
		s.Fatalf("evaluate: %v\n%s", err, out)
	}
	var e sanitize.Evaluation
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		s.Fatalf("%v\n%s", err, out)
	}
	return e
}

// gridTrigger writes BadNet's 3x3 grid in the bottom right corner of 32x32 images, and its mask.
func gridTrigger(t *testing.T) (mark, mask string) {
	t.Helper()
	white, black := color.Gray{Y: 255}, color.Gray{Y: 0}
	grid := [3][3]color.Gray{{black, black, white}, {black, white, black}, {white, black, white}} // rows from the top
	picture, cover := image.NewGray(image.Rect(0, 0, 32, 32)), image.NewGray(image.Rect(0, 0, 32, 32))
	for y, row := range grid {
		for x, c := range row {
			picture.SetGray(29+x, 29+y, c)
			cover.SetGray(29+x, 29+y, white)
		}
	}
	dir := t.TempDir()
	for name, m := range map[string]image.Image{"mark.png": picture, "mask.png": cover} {
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "mark.png"), filepath.Join(dir, "mask.png")
}

// subsetTar copies the first images of every class (those numbered below perClass) of tar.gz archives into one new tar.gz.
func subsetTar(t *testing.T, to string, perClass map[string]int) {
	t.Helper()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	for from, n := range perClass {
		if err := copyImages(w, from, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

func copyImages(w *tar.Writer, from string, below int) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		number, err := strconv.Atoi(strings.TrimSuffix(path.Base(h.Name), path.Ext(h.Name)))
		if err != nil || number >= below || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: h.Name, Mode: 0o644, Size: h.Size}); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}
