package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"grindstone/attest"
	"grindstone/internal/sandbox"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// TestMain makes the commands of the scripts: the program itself.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"grindstone": main})
}

// TestScripts runs every script under testdata/script. Each finds a signed model: model.onnx, bundle.json and signer.pub, with
// other.pub as a key that signed nothing.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds:                commands,
		Setup: func(e *testscript.Env) error {
			e.Setenv("ORT_LIBRARY", filepath.Join(e.WorkDir, "no-runtime"))
			return signModel(e.WorkDir)
		},
	})
}

// TestEngineScripts runs the scripts of commands that run a model. Each finds one, model.onnx, and images of its three classes, in their order
// and in another one.
func TestEngineScripts(t *testing.T) {
	info, err := ort.Load()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/engine",
		RequireExplicitExec: true,
		Cmds:                commands,
		Condition: func(name string) (bool, error) {
			_, err := sandbox.Available()
			return err == nil, nil // there is one condition, sandbox
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("ORT_LIBRARY", info.Path)
			return errors.Join(
				writeClassifier(filepath.Join(e.WorkDir, "model.onnx")),
				writeImages(filepath.Join(e.WorkDir, "images"), "0-red", "1-green", "2-blue"),
				writeImages(filepath.Join(e.WorkDir, "shuffled"), "2-red", "0-green", "1-blue"),
				os.WriteFile(filepath.Join(e.WorkDir, "zip.onnx"), []byte("PK\x03\x04 and so on"), 0o600),
			)
		},
	})
}

// commands are those of the scripts beside testscript's own: "exits CODE PROGRAM ARGS..." wants the program to end with the code.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		if neg {
			ts.Fatalf("exits wants a code")
		}
		code, exit := 0, (*exec.ExitError)(nil)
		if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else {
			ts.Check(err)
		}
		if code != want {
			ts.Fatalf("exit code %d, want %d", code, want)
		}
	},
}

// writeClassifier writes a classifier of 4x4 images whose class is the brightest colour.
func writeClassifier(path string) error {
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, -1, 3, 4, 4)
	same := []float32{1, 0, 0, 0, 1, 0, 0, 0, 1}
	b.Named("colours", "Conv", []string{"x", b.Const(onnx.NewFloat("kernel", []int64{3, 3, 1, 1}, same))})
	b.Named("feature", "Flatten", []string{b.Op("GlobalAveragePool", []string{"colours"})})
	b.Named("logits", "MatMul", []string{"feature", b.Const(onnx.NewFloat("weight", []int64{3, 3}, same))})
	b.Output("logits", onnx.Float, -1, 3)
	raw, err := b.Model(onnx.Opset).Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}

// writeImages makes a folder of images for it: folders of red, green and blue ones.
func writeImages(dir, red, green, blue string) error {
	for class, name := range []string{red, green, blue} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
		for i := range 20 {
			m := image.NewNRGBA(image.Rect(0, 0, 4, 4))
			for at := 0; at < len(m.Pix); at += 4 {
				m.Pix[at+class], m.Pix[at+3] = byte(200+i), 255
			}
			var text bytes.Buffer
			if err := png.Encode(&text, m); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name, fmt.Sprint(i, ".png")), text.Bytes(), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func signModel(dir string) error {
	model := []byte("a model")
	sum := sha256.Sum256(model)
	hash := func(c string) attest.Digest { return attest.Digest{SHA256: strings.Repeat(c, 64)} }
	now := time.Now().UTC()
	p := attest.Predicate{
		SchemaVersion: attest.SchemaVersion,
		Sanitizer:     attest.Sanitizer{ID: attest.SanitizerID, Version: attest.Version{Grindstone: "1.0.0"}},
		Source: attest.Source{URI: "oci://registry.test/m@sha256:" + strings.Repeat("a", 64), Digest: hash("a"),
			MediaType: "application/vnd.oci.image.manifest.v1+json", Annotations: attest.SourceAnnotations{ONNXSHA256: hash("b").SHA256}},
		Transformation: attest.Transformation{Method: "feature-grinding", Type: "permute", SecretDiscarded: true},
		Training: attest.Training{
			Hyperparameters: attest.Hyperparameters{Epochs: 5, GrindEpochs: 2, Steps: 100, GrindSteps: 40, BatchSize: 32, Optimizer: "sgd-nesterov",
				Schedule: "cosine", LearningRate: "0.01", Momentum: "0.9", WeightDecay: "0.0005", AlphaGrind: "0.8", AlphaRestore: "0.2"},
			Datasets: []attest.Dataset{{Name: "default", Digest: hash("c"), Annotations: attest.DatasetAnnotations{Samples: 900, HeldOut: 100, Classes: 10}}},
		},
		Runtime: attest.Runtime{Engine: "onnxruntime", Version: "1.0.0", ExecutionProvider: "CPUExecutionProvider"},
		Metrics: attest.Metrics{
			Dataset: attest.MetricsDataset{Digest: hash("c")},
			Before:  attest.Accuracy{Accuracy: 0.95, Correct: 95, Samples: 100, Low: 0.9, High: 0.98},
			After:   attest.Accuracy{Accuracy: 0.94, Correct: 94, Samples: 100, Low: 0.88, High: 0.97},
			Claims:  []attest.Claim{{Metric: "cda_loss", Comparator: "<=", Threshold: "0.05", Value: "0.01", Passed: true}},
		},
		Policy:    attest.Policy{URI: "urn:grindstone:policy:default", Digest: hash("d")},
		Decision:  attest.Decision{ID: "decision", AdmissionID: "admission", Result: attest.Passed},
		StartedAt: now.Add(-time.Minute), FinishedAt: now,
	}
	noPassword := func() ([]byte, error) { return nil, fmt.Errorf("no password") }
	signer, err := attest.LoadOrCreateKey(filepath.Join(dir, "signer.key"), noPassword)
	if err != nil {
		return err
	}
	other, err := attest.LoadOrCreateKey(filepath.Join(dir, "other.key"), noPassword)
	if err != nil {
		return err
	}
	signed, err := attest.Sign(context.Background(), signer, []attest.Subject{{Name: "model.onnx", SHA256: hex.EncodeToString(sum[:])}}, p)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"model.onnx": model, "bundle.json": signed.Bundle, "signer.pub": signer.PublicPEM(), "other.pub": other.PublicPEM(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
