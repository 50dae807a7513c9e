package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"grindstone/sanitize"
	"grindstone/webhook"
)

func TestExampleConfigLoads(t *testing.T) {
	c, err := LoadConfig("grindstone.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Host = "registry.example.com"
	want.Policy.Data = map[string]any{
		"settings":     map[string]any{"max_cda_loss": 0.05},
		"repositories": map[string]any{},
	}
	c.file, c.lines = "", nil
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the example differs from the defaults it claims to show:\n got %+v\nwant %+v", c, want)
	}
}

func TestEveryFieldOfTheExampleIsRead(t *testing.T) {
	data, err := os.ReadFile("grindstone.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, found, err := parseConfig("grindstone.example.yaml", data)
	if err != nil || len(found) > 0 {
		t.Fatal(err, found)
	}
	for _, field := range []string{
		"listen", "host", "dir", "intercept", "intercept[0]", "datasets", "log.format", "log.level", "trainer.epochs", "trainer.grind_epochs",
		"trainer.steps", "trainer.batch", "trainer.samples", "trainer.learning_rate", "trainer.preprocessing",
		"policy.dir", "policy.data", "key.path", "sanitizer.workers", "sanitizer.timeout", "sanitizer.memory", "sanitizer.provider", "sanitizer.sandbox",
		"sanitizer.threads", "limits.manifest", "limits.blob", "limits.request", "limits.grace", "limits.events", "limits.event_records", "limits.connections", "notify",
		"queue.url", "queue.credentials", "queue.token_file", "queue.ca", "queue.replicas", "queue.listen", "queue.labels", "queue.heartbeat", "worker.listen", "events",
	} {
		if c.lines[field] == 0 {
			t.Errorf("the example does not show %s", field)
		}
	}
}

func TestConfigValues(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "images"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := writeConfig(t, dir, `
listen: "[::1]:7000"
dir: data
intercept: [models/*, vision/**]
datasets:
  default: images
trainer: {epochs: 3, learning_rate: 0.02}
policy:
  data: {settings: {max_cda_loss: 0.1}}
sanitizer:
  timeout: 90s
  memory: 512 MiB
`)
	c, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Dir != filepath.Join(dir, "data") || c.Datasets["default"] != filepath.Join(dir, "images") {
		t.Errorf("relative paths are not taken from the file's folder: %q, %q", c.Dir, c.Datasets["default"])
	}
	if c.Sanitizer.Timeout != 90*time.Second || c.Sanitizer.Memory != 512<<20 || c.Trainer.Epochs != 3 || c.Trainer.LearningRate != 0.02 {
		t.Errorf("wrong values: %+v, %+v", c.Sanitizer, c.Trainer)
	}
	if c.Sanitizer.Workers != 1 || c.Log.Format != "text" {
		t.Errorf("fields that the file does not set lost their defaults: %+v, %+v", c.Sanitizer, c.Log)
	}
	intercepts := c.Intercepts()
	for repository, want := range map[string]bool{
		"models/a": true, "models/a/b": false, "vision/a": true, "vision/a/b": true, "vision": false, "other": false, "xmodels/a": false,
	} {
		if intercepts(repository) != want {
			t.Errorf("intercepts(%q) is %v", repository, !want)
		}
	}
}

func TestConfigProblemsAreAllReportedWithTheirLines(t *testing.T) {
	dir := t.TempDir()
	path := writeConfig(t, dir, `listen: 5050
dirr: data
datasets:
  default: no-such-folder
  "a b": .
log:
  format: xml
  format: json
  level: loud
trainer:
  epochs: many
  learning_rate: -1
intercept: models
policy:
  dir: [a]
sanitizer:
  timeout: 5
  memory: 1MiB
  workers: 0
`)
	_, err := LoadConfig(path)
	if err == nil {
		t.Fatal("accepted")
	}
	got := strings.Split(err.Error(), "\n")
	wants := []string{
		":1: listen: \"5050\" is not host:port",
		":2: unknown field dirr; known are auth, datasets, dir, events, host",
		":4: datasets.default: cannot be read",
		":5: datasets.a b: the name must be",
		":7: log.format: \"xml\" is not one of text, json",
		":8: log.format is set twice, first in line 7",
		":9: log.level: \"loud\"",
		":11: trainer.epochs: \"many\" is not a whole number",
		":12: trainer.learning_rate: -1 is too small",
		":13: intercept must be a list",
		":15: policy.dir must be a path",
		":17: sanitizer.timeout: \"5\" is not a duration",
		":18: sanitizer.memory: 1MiB is too small; the least is 256MiB",
		":19: sanitizer.workers: 0 leaves the work to others",
	}
	if len(got) != len(wants) {
		t.Fatalf("%d problems instead of %d:\n%v", len(got), len(wants), err)
	}
	for i, want := range wants {
		if !strings.HasPrefix(got[i], path+want) {
			t.Errorf("problem %d is %s\nwant FILE%s", i, got[i], want)
		}
	}
}

func TestConfigThatIsNoYAML(t *testing.T) {
	for name, text := range map[string]string{
		"syntax":           "listen: [\n",
		"second document":  "listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n",
		"list":             "- listen\n",
		"anchor to itself": "datasets: &a\n  x: *a\n",
	} {
		_, err := LoadConfig(writeConfig(t, t.TempDir(), text))
		if err == nil || !strings.Contains(err.Error(), "grindstone.yaml:") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadConfig(writeConfig(t, t.TempDir(), "")); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	data, err := os.ReadFile("grindstone.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, found, err := parseConfig("f.yaml", data)
		if err == nil && len(found) == 0 && c.Sanitizer.Workers == 0 && !strings.Contains(string(data), "workers") {
			t.Error("a default was lost")
		}
		for _, p := range found {
			if p.line < 1 {
				t.Errorf("a problem without its line: %v", p)
			}
		}
	})
}

func writeConfig(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "grindstone.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNotifyTargets(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(writeConfig(t, dir, "notify: {b: {url: \"https://b.test/x\", secret_file: secret, states: [held], repositories: [models/*]}, a: {url: \"http://a.test\"}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	targets, err := c.notifyTargets()
	if err != nil || len(targets) != 2 || targets[0].Name != "a" || targets[1].Secret != "0123456789abcdef" || targets[1].States[0] != "held" ||
		!targets[0].Matches("any/thing") || targets[1].Matches("other/x") || !targets[1].Matches("models/x") {
		t.Errorf("%+v, %v", targets, err)
	}
	for text, want := range map[string]string{
		"notify: {a: {url: ftp://x}}":                                  "notify.a.url",
		"notify: {a: {}}":                                              "notify.a.url",
		"notify: {\"a/b\": {url: \"http://x\"}}":                       "the name must be",
		"notify: {a: {url: \"http://x\", states: [sanitizing]}}":       "notify.a.states[0]",
		"notify: {a: {url: \"http://x\", secret_file: nothing}}":       "notify.a.secret_file",
		"notify: {a: {url: \"http://x\", repositories: [\"UPPER\"]}}":  "notify.a.repositories[0]",
		"notify: {a: {url: \"http://x\", secret: 0123456789abcdef01}}": "unknown field notify.a.secret",
	} {
		if _, err := LoadConfig(writeConfig(t, dir, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.notifyTargets(); err == nil {
		t.Error("a short secret is taken")
	}
}

func TestIssuersNeedPrefixes(t *testing.T) {
	load := func(prefixes ...string) (Config, error) {
		text := "auth:\n  roles: [{who: [\"*\"], repositories: [\"**\"], role: pull}]\n  oidc:\n"
		for _, p := range prefixes {
			text += "    - {issuer: \"https://login.example.com\", audience: a, prefix: \"" + p + "\"}\n"
		}
		return LoadConfig(writeConfig(t, t.TempDir(), text))
	}
	if _, err := load(""); err != nil {
		t.Errorf("one issuer: %v", err)
	}
	if c, err := load("ci:", "people:"); err != nil || c.authentication().OIDC[1].Prefix != "people:" {
		t.Errorf("%+v, %v", c.Auth.OIDC, err)
	}
	for want, prefixes := range map[string][]string{
		":5: auth.oidc[1].prefix: is needed where there is more than one issuer": {"ci:", ""},
		":5: auth.oidc[1].prefix: \"ci:\" is another issuer's":                   {"ci:", "ci:"},
		":4: auth.oidc[0].prefix: \"ci\" is not a word and a colon":              {"ci"},
	} {
		if _, err := load(prefixes...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", prefixes, err)
		}
	}
}

// TestSanitizerSettings: every field of the configuration that bounds a sanitizer comes to it.
func TestSanitizerSettings(t *testing.T) {
	c := DefaultConfig()
	c.Sanitizer = SanitizerConfig{Workers: 2, Timeout: time.Minute, Memory: 3, Model: 4, Nodes: 5, Tensors: 6, PerIdentity: 7, Provider: "cpu", Sandbox: "require", Threads: 8}
	want := webhook.SanitizerConfig{Workers: 2, Timeout: time.Minute, Memory: 3, Model: sanitize.Limits{Bytes: 4, Nodes: 5, Tensors: 6}, Each: 7, Provider: "cpu", Sandbox: "require", Threads: 8}
	if got := c.sanitizer(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
