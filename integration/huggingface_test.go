package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
	"grindstone/webhook/pushevent"
)

const hubSecret = "a secret that the Hub shows"

// hubSetup is the real server, and a server on loopback with the file API that the Hugging Face Hub documents: the Hub itself cannot be reached.
type hubSetup struct {
	*server
	hub *testregistry.Hub
}

func startWithHub(t *testing.T, settings string) hubSetup {
	t.Helper()
	needRuntime(t)
	hub, dir := testregistry.StartHub(t), t.TempDir()
	hub.Token = "hf_token"
	for name, text := range map[string]string{"secret": hubSecret, "token": hub.Token} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := writeConfig(t, dir, "trainer: {steps: 120, batch: 32, learning_rate: 0.05}\nlimits: {blob: 4MiB}\nevents: {huggingface: {registry: \""+hub.URL+"\", secret_file: secret, token_file: token, hosts: [127.0.0.1], size: 6MiB"+settings+"}}\n")
	return hubSetup{startServer(t, "--config", config, "--data", tinyImages(t)), hub}
}

// event is the body that the Hub documents for a new commit of a branch. Its URLs are of a host that must not be asked.
func hubEvent(model, ref, commit string) string {
	return fmt.Sprintf(`{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":%q,"id":"6366c000a2abcdf2fd69a080","private":false,
		"url":{"web":"http://127.0.0.1:1/%[1]s","api":"http://127.0.0.1:1/api/models/%[1]s"},"headSha":%q,"tags":[],"owner":{"id":"61d2000c3c2083e1c08af22d"}},
		"updatedRefs":[{"ref":%[3]q,"oldSha":null,"newSha":%[2]q}],"webhook":{"id":"6390e855e30d9209411de93b","version":3}}`, model, commit, ref)
}

// tell posts an event as the Hub does, and wants it to be answered with the status and the number of events that are taken.
func (s hubSetup) tell(body, secret string, status, taken int) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://"+s.address+"/api/v1/events/huggingface", strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Webhook-Secret", secret)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	var got struct{ Taken int }
	if err := json.NewDecoder(answer.Body).Decode(&got); answer.StatusCode != status || status == http.StatusAccepted && (err != nil || got.Taken != taken) {
		s.Errorf("%.200s is answered %d with %d taken, %v; want %d with %d", body, answer.StatusCode, got.Taken, err, status, taken)
	}
}

// failure waits until the events of a repository have failed, and returns why.
func (s hubSetup) failure(repository string) string {
	s.Helper()
	var left struct{ Events []webhook.Ingestion }
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		s.get("/api/v1/events", &left)
		for _, i := range left.Events {
			if i.Event.Repository == repository && i.State == webhook.IngestFailed {
				return i.Error
			}
		}
	}
	s.Fatalf("%s has not failed: %+v", repository, left.Events)
	return ""
}

// TestHuggingFace takes a commit of a model repository through the real server: told of as the Hub documents it, downloaded by the file API that the
// Hub documents (from a server of the test, as the Hub cannot be reached), sanitized by the real sanitizer, released, verified.
func TestHuggingFace(t *testing.T) {
	s := startWithHub(t, "")
	const model, repository = "Some-User/colours", "events/huggingface/"
	to := repository + pushevent.HubRepository(model)
	network := tiny{external: "weights/conv.bin"}.file(t).content
	files := map[string][]byte{
		"README.md": []byte("# Colours\n"), "onnx/model.onnx": network, "onnx/weights/conv.bin": tinyWeights(t, "conv.weight"),
		"pytorch_model.bin": []byte("weights of another format"), "model.safetensors": []byte("likewise"),
	}
	first := s.hub.Push(t, model, "main", files)

	s.tell(hubEvent(model, "refs/heads/main", first), "another secret altogether", http.StatusUnauthorized, 0)
	s.tell(hubEvent(model, "refs/heads/main", first), "", http.StatusUnauthorized, 0)
	s.tell(`{"event":{}}`, hubSecret, http.StatusBadRequest, 0)
	s.tell(hubEvent(model, "refs/heads/main", "../../secrets"), hubSecret, http.StatusBadRequest, 0)
	s.tell(strings.Repeat(" ", 1<<20+1), hubSecret, http.StatusRequestEntityTooLarge, 0)
	s.tell(hubEvent(model, "refs/heads/dev", first), hubSecret, http.StatusAccepted, 0)
	s.tell(hubEvent(model, "refs/pr/1", first), hubSecret, http.StatusAccepted, 0)
	s.tell(strings.Replace(hubEvent(model, "refs/heads/main", first), `"type":"model"`, `"type":"dataset"`, 1), hubSecret, http.StatusAccepted, 0)
	s.tell(strings.Replace(hubEvent(model, "refs/heads/main", first), "repo.content", "repo.config", 1), hubSecret, http.StatusAccepted, 0)
	if asked := s.hub.Asked(); len(asked) != 0 {
		t.Errorf("the Hub was asked for %q", asked)
	}
	ignored := func() int { return strings.Count(s.Stderr.String(), "a push event is ignored") }
	for deadline := time.Now().Add(10 * time.Second); ignored() < 4 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // a process's words take a moment
	}
	if log := s.Stderr.String(); ignored() != 4 || !strings.Contains(log, "another ref") {
		t.Errorf("what is ignored is not logged:\n%s", log)
	}

	s.tell(hubEvent(model, "refs/heads/main", first), hubSecret, http.StatusAccepted, 1)
	s.tell(hubEvent(model, "refs/heads/main", first), hubSecret, http.StatusAccepted, 0) // a replay
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.admissions("list"), to); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the commit was not brought in:\n%s", s.Stderr.String())
		}
	}
	a := s.await(to, 5*time.Minute)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	if a.Source.Identity != "event:huggingface" || a.Source.Annotations["dev.grindstone.huggingface.model"] == "" || len(a.Changed) != 2 {
		t.Errorf("%+v, changed %+v", a.Source, a.Changed)
	}
	t.Run("the released package", func(t *testing.T) { s.in(t).checkReleased(to, first, files, a) })
	t.Run("a commit that changes no model", func(t *testing.T) {
		s := s.in(t)
		files["README.md"] = []byte("# The three colours\n")
		second := s.hub.Push(t, model, "main", files)
		s.tell(hubEvent(model, "refs/heads/main", second), hubSecret, http.StatusAccepted, 1)
		s.awaitDigest(to, second, a.Released.Digest)
		if list := s.admissions("list"); strings.Count(list, to) != 1 {
			t.Errorf("it is sanitized again:\n%s", list)
		}
	})
	t.Run("an older commit leaves the branch", func(t *testing.T) {
		s := s.in(t)
		was := s.hub.Push(t, model, "main", map[string][]byte{"model.onnx": tiny{name: "older"}.file(t).content})
		s.hub.Push(t, model, "main", map[string][]byte{"model.onnx": tiny{name: "newer"}.file(t).content})
		s.tell(hubEvent(model, "refs/heads/main", was), hubSecret, http.StatusAccepted, 1)
		var digest string
		for deadline := time.Now().Add(5 * time.Minute); digest == "" && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			digest, _ = crane.Digest(s.address+"/"+to+":"+was, crane.Insecure)
		}
		if digest == "" {
			t.Fatalf("the older commit is not released:\n%s", s.admissions("list"))
		}
		s.awaitDigest(to, "main", a.Released.Digest)
		if log := s.Stderr.String(); !strings.Contains(log, "a branch has gone on since a push event") {
			t.Errorf("the branch was not looked at:\n%s", log)
		}
	})
	t.Run("refused", func(t *testing.T) { s.in(t).checkRefused() })
}

func (s hubSetup) in(t *testing.T) hubSetup {
	part := *s.server
	part.T = t
	return hubSetup{&part, s.hub}
}

// awaitDigest waits until a tag has a digest.
func (s hubSetup) awaitDigest(repository, tag, want string) {
	s.Helper()
	var got string
	var err error
	for deadline := time.Now().Add(time.Minute); got != want && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got, err = crane.Digest(s.address+"/"+repository+":"+tag, crane.Insecure)
	}
	if got != want {
		s.Errorf("%s:%s is %s, %v; want %s", repository, tag, got, err, want)
	}
}

// checkReleased: branch and commit are tags of a package of the two files that the model is made of, both sanitized, and it verifies.
func (s hubSetup) checkReleased(repository, commit string, pushed map[string][]byte, a webhook.Admission) {
	s.awaitDigest(repository, "main", a.Released.Digest)
	s.awaitDigest(repository, commit, a.Released.Digest)
	text, err := crane.Manifest(s.address+"/"+repository+":main", crane.Insecure)
	if err != nil {
		s.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil {
		s.Fatal(err)
	}
	var names []string
	for _, l := range manifest.Layers {
		name := l.Annotations[ocispec.AnnotationTitle]
		names = append(names, name)
		if content := s.pullBlob(repository, l.Digest.String()); bytes.Equal(content, pushed[name]) {
			s.Errorf("%s is what was pushed", name)
		}
	}
	if !slices.Equal(names, []string{"onnx/model.onnx", "onnx/weights/conv.bin"}) {
		s.Errorf("released are %q", names)
	}
	if out, err := s.grindstone("verify", s.address+"/"+repository+":main", "--key", filepath.Join(s.dir, "keys", "grindstone.pub")); err != nil || !strings.Contains(out, "verified: ") {
		s.Errorf("verify: %v\n%s", err, out)
	}
	for _, path := range s.hub.Asked() {
		if strings.Contains(path, "pytorch_model") || strings.Contains(path, "safetensors") || strings.Contains(path, "README") {
			s.Errorf("%s was downloaded", path)
		}
	}
}

// checkRefused tells of commits that cannot be brought in, and of a model that cannot be sanitized.
func (s hubSetup) checkRefused() {
	large := make([]byte, 5<<20)
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"u/no-onnx":   {map[string][]byte{"model.safetensors": []byte("x"), "README.md": []byte("x")}, "no ONNX file that is wanted here, only README.md, model.safetensors"},
		"u/one-large": {map[string][]byte{"model.onnx": large}, "5242880 bytes, more than 4194304 (limits.blob)"},
		"u/all-large": {map[string][]byte{"a.onnx": large[:3<<20], "b.onnx": large[:7<<19]}, "more than 6291456 bytes (size)"},
	} {
		s.tell(hubEvent(name, "refs/heads/main", s.hub.Push(s.T, name, "main", c.files)), hubSecret, http.StatusAccepted, 1)
		if why := s.failure(name); !strings.Contains(why, c.want) {
			s.Errorf("%s: %s", name, why)
		}
	}
	s.tell(hubEvent("u/gone", "refs/heads/main", strings.Repeat("0", 40)), hubSecret, http.StatusAccepted, 1)
	if why := s.failure("u/gone"); !strings.Contains(why, "not there") {
		s.Errorf("a commit that is not there: %s", why)
	}
	if list := s.admissions("list"); strings.Contains(list, "/u/") {
		s.Errorf("what was not brought in has an admission:\n%s", list)
	}
	for name, c := range map[string]struct {
		model tiny
		want  webhook.Reason
	}{"u/no-rule": {tiny{det: true}, webhook.ReasonUnsupported}, "u/no-weights": {tiny{external: "gone.bin"}, webhook.ReasonInvalidModel}, "u/weights-above": {tiny{external: "../up.bin"}, webhook.ReasonInvalidModel}} {
		commit := s.hub.Push(s.T, name, "main", map[string][]byte{"onnx/model.onnx": c.model.file(s.T).content, "up.bin": tinyWeights(s.T, "conv.weight")})
		s.tell(hubEvent(name, "refs/heads/main", commit), hubSecret, http.StatusAccepted, 1)
		for deadline := time.Now().Add(time.Minute); !strings.Contains(s.admissions("list"), name) && time.Now().Before(deadline); {
			time.Sleep(100 * time.Millisecond)
		}
		if a := s.await("events/huggingface/"+name, time.Minute); a.State != webhook.Held || a.Reason != c.want {
			s.Errorf("%s: %s %s: %s", name, a.State, a.Reason, a.Message)
		}
	}
}
