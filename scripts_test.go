package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"grindstone/attest"
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
		Setup: func(e *testscript.Env) error {
			e.Setenv("ORT_LIBRARY", filepath.Join(e.WorkDir, "no-runtime"))
			return signModel(e.WorkDir)
		},
	})
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
