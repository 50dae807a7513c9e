package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// TestRealDistributionTellsOfPushes has CNCF distribution, as a process, tell the real server of a push. The model is pulled and held, as there
// is no clean data; an operator approves it, and it is pushed back with the attestation of that, which is no push to be told of again.
func TestRealDistributionTellsOfPushes(t *testing.T) {
	const secret = "a secret of the registry"
	at, dir := testregistry.FreePort(t), t.TempDir()
	other := testregistry.Distribution(t, "notifications:\n  endpoints:\n    - name: grindstone\n      url: http://"+at+"/api/v1/events/distribution\n"+
		"      headers: {Authorization: [\"Bearer "+secret+"\"]}\n      timeout: 5s\n      threshold: 3\n      backoff: 1s\n")
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--config", writeConfig(t, dir, "events: {distribution: {registry: \""+other+"\", secret_file: secret, release: \""+other+"/released\"}}\n"), "--listen", at)
	host := strings.TrimPrefix(other, "http://")
	source := &server{T: t, address: host}
	source.pushORAS("in/m", "v1", nil, layerFile{"", "application/vnd.oci.empty.v1+json", []byte("{}")}, layerFile{"model.onnx", "application/octet-stream", tinyONNX("a")})

	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(s.admissions("list"), "events/distribution/in/m"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the push did not arrive")
		}
	}
	a := s.await("events/distribution/in/m", time.Minute)
	if a.State != webhook.Held || a.Reason != webhook.ReasonNoDataset {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	s.admissions("approve", a.ID, "--reason", "for the test")
	a = s.await("events/distribution/in/m", time.Minute)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	if d, err := crane.Digest(host+"/released/in/m:v1", crane.Insecure); err != nil || d != a.Released.Digest {
		t.Errorf("pushed back is %s, %v; want %s", d, err, a.Released.Digest)
	}
	out, err := s.grindstone("verify", host+"/released/in/m:v1", "--key", filepath.Join(s.dir, "keys", "grindstone.pub"), "--allow-approved")
	if err != nil || !strings.Contains(out, "operator loopback: for the test") {
		t.Errorf("verify there: %v\n%s", err, out)
	}
	time.Sleep(2 * time.Second) // for the events of what was pushed back
	if out := s.admissions("list"); strings.Count(out, "events/distribution/") != 1 {
		t.Errorf("pushes of its own are taken for others:\n%s", out)
	}
}

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
		"zot: {registry: \"http://x\", secret_file: secret, release: \"http://x\"}":          "take the place of what was pushed",
		"zot: {registry: \"http://x\", secret_file: secret, release: \"http://y/UPPER\"}":    "events.zot.release",
		"zot: {registry: \"http://x\", secret_file: secret, prefix: \"../x/\"}":              "events.zot.prefix",
		"zot: {registry: \"http://x\", secret_file: secret, window: 1s}":                     "events.zot.window",
		"zot: {registry: \"http://x\", secret_file: secret, repositories: [\"UPPER\"]}":      "events.zot.repositories[0]",
		"zot: {registry: \"http://x\", secret_file: secret}}\nintercept: [models/*]\nlog: {": "intercept does not match",
	} {
		if _, err := LoadConfig(writeConfig(t, dir, "events: {"+text+"}\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
