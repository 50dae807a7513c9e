package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEventSources(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(writeConfig(t, dir, "events: {zot: {registry: \"http://z.test:5000\", secret_file: secret, release: \"https://z.test/released/models\"}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	sources, err := c.eventSources()
	if err != nil || len(sources) != 1 || sources[0].Prefix != "events/zot/" || sources[0].To != "released/models/" || !sources[0].Registry.PlainHTTP || sources[0].Release.PlainHTTP {
		t.Errorf("%+v, %v", sources, err)
	}
	if c, err = LoadConfig(writeConfig(t, dir, "limits: {blob: 2GiB}\nevents: {mlflow: {registry: \"https://m.test/mlflow\", secret_file: secret, username: ada, password_file: secret}}\n")); err != nil {
		t.Fatal(err)
	}
	if sources, err = c.eventSources(); err != nil || len(sources) != 1 || sources[0].Models == nil || sources[0].Models.Server.URL != "https://m.test/mlflow" ||
		sources[0].Models.Server.Password != "0123456789abcdef" || sources[0].Models.Alias != "sanitized" || sources[0].Models.Experiment != "grindstone" || sources[0].Models.MaxFile != 2<<30 {
		t.Errorf("%+v, %v", sources, err)
	}
	if c, err = LoadConfig(writeConfig(t, dir, "limits: {blob: 2GiB}\nevents: {huggingface: {secret_file: secret, token_file: secret, files: [onnx/*], release: \"https://r.test/released\"}}\n")); err != nil {
		t.Fatal(err)
	}
	if sources, err = c.eventSources(); err != nil || len(sources) != 1 || sources[0].Hub == nil {
		t.Fatalf("%+v, %v", sources, err)
	}
	if hub := sources[0].Hub; hub.Hub.URL != "https://huggingface.co" || hub.Hub.Token != "0123456789abcdef" || !hub.Hub.Hosts("cdn-lfs.hf.co") || hub.Hub.Hosts("hf.co.evil.test") ||
		hub.Branch != "main" || !hub.Files("onnx/Model.onnx") || hub.Files("model.onnx") || hub.MaxFile != 2<<30 || hub.MaxSize != 16<<30 || sources[0].Timeout != time.Hour || sources[0].To != "released/" {
		t.Errorf("%+v", hub)
	}
	for text, want := range map[string]string{
		"huggingface: {secret_file: secret, registry: \"hub\"}":            "events.huggingface.registry",
		"huggingface: {secret_file: secret, token_file: nowhere}":          "events.huggingface.token_file",
		"huggingface: {secret_file: secret, branch: refs/heads/main}":      "events.huggingface.branch",
		"huggingface: {secret_file: secret, files: [a, ../b]}":             "grindstone.yaml:1: events.huggingface.files[1]",
		"huggingface: {secret_file: secret, hosts: [\"https://x\"]}":       "events.huggingface.hosts[0]",
		"huggingface: {secret_file: secret, size: 1KiB}":                   "events.huggingface.size",
		"huggingface: {secret_file: secret, timeout: 1ms}":                 "events.huggingface.timeout",
		"huggingface: {secret_file: secret, alias: a}":                     "unknown field events.huggingface.alias",
		"zot: {registry: \"http://x\", secret_file: secret, branch: main}": "unknown field events.zot.branch",
		"huggingface: {}": "events.huggingface.secret_file",
		"mlflow: {registry: \"ftp://x\", secret_file: secret}":                                                          "events.mlflow.registry",
		"mlflow: {registry: \"http://x\", secret_file: secret, alias: latest}":                                          "events.mlflow.alias",
		"mlflow: {registry: \"http://x\", secret_file: secret, alias: \"a b\"}":                                         "events.mlflow.alias",
		"mlflow: {registry: \"http://x\", secret_file: secret, experiment: \"\"}":                                       "events.mlflow.experiment",
		"mlflow: {registry: \"http://x\", secret_file: secret, username: ada}":                                          "events.mlflow.username",
		"mlflow: {registry: \"http://x\", secret_file: secret, username: a, password_file: secret, token_file: secret}": "events.mlflow.token_file",
		"mlflow: {registry: \"http://x\", secret_file: secret, token_file: nowhere}":                                    "events.mlflow.token_file",
		"mlflow: {registry: \"http://x\", secret_file: secret, release: \"http://y\"}":                                  "unknown field events.mlflow.release",
		"zot: {registry: \"http://x\", secret_file: secret, alias: a}":                                                  "unknown field events.zot.alias",
		"nobody: {registry: \"http://x\", secret_file: secret}":                                                         "is no known source",
		"zot: {secret_file: secret}":    "events.zot.registry",
		"zot: {registry: \"http://x\"}": "events.zot.secret_file",
		"zot: {registry: \"http://x\", secret_file: secret, release: \"http://x\"}":                                                        "take the place of what was pushed",
		"zot: {registry: \"https://X.test\", secret_file: secret, release: \"https://x.test:443\"}":                                        "take the place of what was pushed",
		"zot: {registry: \"http://x\", secret_file: secret, release: \"http://y\"}, acr: {registry: \"http://y\", secret_file: secret}":    "take the place of what was pushed",
		"zot: {registry: \"http://x/models\", secret_file: secret}":                                                                        "has a path",
		"zot: {registry: \"http://x\", secret_file: secret, prefix: a/}, acr: {registry: \"http://y\", secret_file: secret, prefix: a/b/}": "events.acr.prefix",
		"zot: {registry: \"http://x\", secret_file: secret, release: \"http://y/UPPER\"}":                                                  "events.zot.release",
		"zot: {registry: \"http://x\", secret_file: secret, prefix: \"../x/\"}":                                                            "events.zot.prefix",
		"zot: {registry: \"http://x\", secret_file: secret, window: 1s}":                                                                   "events.zot.window",
		"zot: {registry: \"http://x\", secret_file: secret, repositories: [\"UPPER\"]}":                                                    "events.zot.repositories[0]",
		"zot: {registry: \"http://x\", secret_file: secret}}\nintercept: [models/*]\nlog: {":                                               "intercept does not match",
	} {
		if _, err := LoadConfig(writeConfig(t, dir, "events: {"+text+"}\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
