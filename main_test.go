package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"grindstone/attest"
)

// TestMain makes the commands of the scripts: the program itself.
func TestMain(m *testing.M) {
	testscript.Main(cleaning{m}, map[string]func(){"grindstone": main})
}

// cleaning removes the program that the tests have built.
type cleaning struct{ *testing.M }

func (c cleaning) Run() int {
	defer func() {
		if built != "" {
			os.RemoveAll(built)
		}
	}()
	return c.M.Run()
}

var built string // folder of the program

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

// binary builds the program once for all tests that run it as a server.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "grindstone-test")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "grindstone")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// server is the real program, serving as a process of its own.
type server struct {
	*testing.T
	address, dir string
	greeting     string // standard output up to and with the last line
	log          *bytes.Buffer
	cmd          *exec.Cmd
	ended        chan error
}

// startServer runs `grindstone serve` on a free port and a fresh folder, with more arguments, until the test ends.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	return startServerIn(t, t.TempDir(), args...)
}

// startServerIn is startServer on a folder that another server may have used.
func startServerIn(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{T: t, dir: dir, log: &bytes.Buffer{}, ended: make(chan error, 1)}
	s.cmd = exec.Command(path, append([]string{"serve", "--listen", "127.0.0.1:0", "--dir", dir}, args...)...)
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	greeted := make(chan bool)
	go func() {
		defer func() { s.ended <- s.cmd.Wait() }()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.greeting += lines.Text() + "\n"
			if _, address, ok := strings.Cut(lines.Text(), "listens on http"); ok {
				_, s.address, _ = strings.Cut(address, "://")
			}
			if strings.Contains(lines.Text(), "/api/v1/admissions") { // the last line
				close(greeted)
				return
			}
		}
	}()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			text := s.log.String()
			t.Logf("end of the server's log:\n%s", text[max(0, len(text)-4000):])
		}
	})
	select {
	case <-greeted:
	case err := <-s.ended:
		s.ended <- err
		t.Fatalf("the server ended: %v\n%s", err, s.log)
	case <-time.After(60 * time.Second):
		t.Fatal("the server does not listen")
	}
	return s
}

// stop asks the server to end and returns how it did.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	err := <-s.ended
	s.ended <- err
	return err
}

// get reads a page of the server into a *string, or as JSON, and returns the status.
func (s *server) get(path string, into any) int {
	s.Helper()
	r, err := http.Get("http://" + s.address + path)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		s.Fatal(err)
	}
	if text, ok := into.(*string); ok {
		*text = string(data)
	} else if into != nil {
		if err := json.Unmarshal(data, into); err != nil {
			s.Fatalf("%s: %v\n%s", path, err, data)
		}
	}
	return r.StatusCode
}

func TestServe(t *testing.T) {
	t.Setenv("ORT_LIBRARY", "/nowhere")
	s := startServer(t)
	for _, words := range []string{"intercepts    **", "clean data    none", "SHA256:", "oras push --plain-http " + s.address} {
		if !strings.Contains(s.greeting, words) {
			t.Errorf("the greeting lacks %q:\n%s", words, s.greeting)
		}
	}
	for _, sub := range []string{"", "registry", "state", "work", "keys"} {
		info, err := os.Stat(filepath.Join(s.dir, sub))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("folder %q: %v, %v", sub, info, err)
		}
	}
	public, err := os.ReadFile(filepath.Join(s.dir, "keys", "grindstone.pub"))
	var answered string
	if s.get("/api/v1/key", &answered); err != nil || answered != string(public) {
		t.Errorf("the key answered is not keys/grindstone.pub: %v", err)
	}
	var ready struct {
		Ready  bool
		Checks []struct{ Name, Reason string }
	}
	if status := s.get("/readyz", &ready); status != http.StatusServiceUnavailable || ready.Ready {
		t.Errorf("ready without a runtime library: %d %+v", status, ready)
	}
	reason := ""
	for _, c := range ready.Checks {
		if c.Name == "runtime" {
			reason = c.Reason
		}
	}
	if !strings.Contains(reason, "ONNX Runtime library was not found") {
		t.Errorf("%+v", ready)
	}
	if status := s.get("/v2/", nil); status != http.StatusOK {
		t.Errorf("/v2/ is answered %d", status)
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "serve", "--listen", "127.0.0.1:0", "--dir", s.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "stop the other server") {
		t.Errorf("a second server on the same folder: %v\n%s", err, out)
	}
	if err := s.stop(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
	again := startServerIn(t, s.dir)
	var key string
	if again.get("/api/v1/key", &key); key != answered {
		t.Error("the key is another one after a restart")
	}
}

func TestServeReadsTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	config := writeConfig(t, dir, "log: {format: json, level: debug}\nintercept: [models/*]\ndatasets: {digits: .}\nsanitizer: {workers: 2}\n")
	s := startServer(t, "--config", config)
	for _, words := range []string{"intercepts    models/*\n", "clean data    digits: " + dir} {
		if !strings.Contains(s.greeting, words) {
			t.Errorf("the greeting lacks %q:\n%s", words, s.greeting)
		}
	}
	s.get("/healthz", nil)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(s.log.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("the log is not JSON: %s", line)
		}
	}
	if !strings.Contains(s.log.String(), `"path":"/healthz"`) {
		t.Errorf("no line for the request:\n%s", s.log)
	}
}
