package integration

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestServe(t *testing.T) {
	t.Setenv("ORT_LIBRARY", "/nowhere")
	s := startServer(t)
	for _, words := range []string{"intercepts    **", "clean data    none", "sanitizer     none: no ONNX Runtime library was found", "SHA256:", "oras push --plain-http " + s.address} {
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
	out, err := exec.Command(binary(t), "serve", "--listen", "127.0.0.1:0", "--dir", s.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "stop the other server") {
		t.Errorf("a second server on the same folder: %v\n%s", err, out)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
	for _, words := range []string{`level=WARN msg="pushed models stay in quarantine`, `msg="the server starts"`, `msg="the server has stopped"`} {
		if !strings.Contains(s.Stderr.String(), words) {
			t.Errorf("the log lacks %q:\n%s", words, s.Stderr)
		}
	}
	again := startServerIn(t, s.dir)
	var key string
	if again.get("/api/v1/key", &key); key != answered {
		t.Error("the key is another one after a restart")
	}
}

// TestServeEncryptsItsKey: with a password in the environment, the key that is made at the first start is encrypted with it.
func TestServeEncryptsItsKey(t *testing.T) {
	t.Setenv("GRINDSTONE_KEY_PASSWORD", "a password")
	s := startServer(t)
	text, err := os.ReadFile(filepath.Join(s.dir, "keys", "grindstone.key"))
	if err != nil || !strings.Contains(string(text), "ENCRYPTED") {
		t.Errorf("%v\n%s", err, text)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	startServerIn(t, s.dir)
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
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(s.Stderr.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("the log is not JSON: %s", line)
		}
	}
	if !strings.Contains(s.Stderr.String(), `"path":"/healthz"`) {
		t.Errorf("no line for the request:\n%s", s.Stderr)
	}
}
