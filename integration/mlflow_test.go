package integration

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
	"grindstone/webhook/pushevent"
)

const (
	mlflowScript = "testdata/mlflow/client.py"
	mlflowSecret = "a secret that MLflow signs with"
)

// mlflowSetup is MLflow with its webhook, and the real server that it tells of versions.
type mlflowSetup struct {
	*server
	mlflow *testregistry.MLflow
}

func startWithMLflow(t *testing.T) mlflowSetup {
	t.Helper()
	if testing.Short() {
		t.Skip("MLflow takes a minute")
	}
	needRuntime(t)
	m, dir := testregistry.StartMLflow(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(mlflowSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	config := writeConfig(t, dir, "trainer: {steps: 120, batch: 32, learning_rate: 0.05}\nevents: {mlflow: {registry: \""+m.URL+"\", secret_file: secret}}\nlimits: {blob: 4MiB}\n")
	s := startServer(t, "--config", config, "--data", tinyImages(t))
	m.Client(mlflowScript, "webhook", "http://"+s.address+"/api/v1/events/mlflow", mlflowSecret)
	return mlflowSetup{s, m}
}

// push logs a model with MLflow's own client and returns the version and the admission's repository.
func (s mlflowSetup) push(name string, model tiny) (version, repository string) {
	s.Helper()
	path := filepath.Join(s.TempDir(), "model.onnx")
	if err := os.WriteFile(path, model.file(s.T).content, 0o600); err != nil {
		s.Fatal(err)
	}
	return s.mlflow.Client(mlflowScript, "log", name, path), "events/mlflow/" + pushevent.ModelRepository(name)
}

// awaitTag waits for the end of the admission that has a tag.
func (s mlflowSetup) awaitTag(repository, tag string) webhook.Admission {
	s.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var list struct{ Admissions []webhook.Admission }
		if s.get("/api/v1/admissions?repository="+repository+"&tag="+tag, &list); len(list.Admissions) > 0 && list.Admissions[0].State.Final() {
			return list.Admissions[0]
		}
	}
	s.Fatalf("no end of %s:%s; waiting are %+v", repository, tag, s.ingestions())
	return webhook.Admission{}
}

func (s mlflowSetup) ingestions() []webhook.Ingestion {
	s.Helper()
	var left struct{ Events []webhook.Ingestion }
	s.get("/api/v1/events", &left)
	return left.Events
}

type mlflowVersion struct {
	Version     json.Number
	RunID       string `json:"run_id"`
	Source      string
	Description string
	Tags        map[string]string
}

func (s mlflowSetup) version(name, alias string) (v mlflowVersion) {
	s.Helper()
	if err := json.Unmarshal([]byte(s.mlflow.Client(mlflowScript, "show", name, alias)), &v); err != nil {
		s.Fatal(err)
	}
	return v
}

// tell posts an event as MLflow does, and returns status and answer.
func (s mlflowSetup) tell(id, name, version, secret string, at time.Time) (int, string) {
	s.Helper()
	body := fmt.Sprintf(`{"entity": "model_version", "action": "created", "timestamp": %q, "data": {"name": %q, "version": %q, "source": "s", "run_id": null, "tags": {}, "description": null}}`,
		at.UTC().Format("2006-01-02T15:04:05.000000+00:00"), name, version)
	mac := hmac.New(sha256.New, []byte(secret))
	stamp := fmt.Sprint(at.Unix())
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	r, err := http.NewRequest(http.MethodPost, "http://"+s.address+"/api/v1/events/mlflow", strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	for key, value := range map[string]string{"X-MLflow-Delivery-Id": id, "X-MLflow-Timestamp": stamp, "X-MLflow-Signature": "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))} {
		r.Header.Set(key, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text)
}

// api calls MLflow's REST API.
func (s mlflowSetup) api(method, path, body string) string {
	s.Helper()
	r, err := http.NewRequest(method, s.mlflow.URL+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode/100 != 2 {
		s.Fatalf("%s %s: %d %s %v", method, path, answer.StatusCode, text, err)
	}
	return string(text)
}

// drained waits until no push event is under way; those that have failed stay.
func (s mlflowSetup) drained() {
	s.Helper()
	pending := func(i webhook.Ingestion) bool { return i.State == webhook.IngestPending }
	for deadline := time.Now().Add(time.Minute); slices.ContainsFunc(s.ingestions(), pending); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("%+v", s.ingestions())
		}
	}
}

// in is the same for a part of the test.
func (s mlflowSetup) in(t *testing.T) mlflowSetup {
	part := *s.server
	part.T = t
	return mlflowSetup{&part, s.mlflow}
}

// TestMLflow takes models through a real MLflow: logged and registered by its own client, told of by its webhook, sanitized by the real sanitizer,
// registered as a new version, and loaded by its client again.
func TestMLflow(t *testing.T) {
	s := startWithMLflow(t)
	const name = "Colour Classifier"
	version, repository := s.push(name, tiny{features: 24}) // the convolution's weight is so large that MLflow keeps it in a second file
	a := s.awaitTag(repository, "v"+version)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	if version != "1" || a.Source.Identity != "event:mlflow" || !strings.HasPrefix(a.Source.Annotations["dev.grindstone.mlflow.model"], name) {
		t.Errorf("version %s: %+v", version, a.Source)
	}
	if len(a.Changed) != 2 {
		t.Errorf("changed %+v; want the model and its external data", a.Changed)
	}
	t.Run("the new version", func(t *testing.T) { s.in(t).checkVersion(name, a) })
	t.Run("a version of its own is no push", func(t *testing.T) {
		s := s.in(t)
		s.mlflow.Client(mlflowScript, "copy", name, "2", "production") // MLflow's way to promote
		time.Sleep(3 * time.Second)
		s.drained()
		if list := s.admissions("list"); strings.Count(list, "events/mlflow/") != 1 {
			t.Errorf("%s", list)
		}
		if v := s.version(name, "sanitized"); v.Version != "2" {
			t.Errorf("%+v", v)
		}
		if log := s.Stderr.String(); strings.Count(log, "released here") != 2 { // the version that was made, and its copy
			t.Error("the events of the server's own version did not arrive")
		}
	})
	t.Run("refused and repeated", func(t *testing.T) { s.in(t).checkRefused(name, repository) })
	t.Run("approved without sanitizing", func(t *testing.T) {
		s := s.in(t)
		version, repository := s.push("unsupported", tiny{det: true})
		a := s.awaitTag(repository, "v"+version)
		if a.State != webhook.Held || a.Reason != webhook.ReasonUnsupported {
			t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
		}
		if text := s.api("GET", "/api/2.0/mlflow/registered-models/get?name=unsupported", ""); strings.Contains(text, "sanitized") {
			t.Errorf("a held model has a version: %s", text)
		}
		s.admissions("approve", a.ID, "--reason", "for the test")
		if a = s.awaitTag(repository, "v"+version); a.State != webhook.Released {
			t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
		}
		if v := s.version("unsupported", "sanitized"); v.Tags["grindstone.sanitized"] != "false" || v.Tags["grindstone.transformation"] != "none" || !strings.Contains(v.Description, "for the test") {
			t.Errorf("%+v", v)
		}
	})
	t.Run("the alias stays with the newest", func(t *testing.T) {
		s := s.in(t)
		third, repository := s.push(name, tiny{name: "newer"})
		if a := s.awaitTag(repository, "v"+third); a.State != webhook.Released || s.version(name, "sanitized").Tags["grindstone.source.version"] != third {
			t.Fatalf("%s %s: %+v", a.State, a.Message, s.version(name, "sanitized"))
		}
		if status, text := s.tell("again", name, "1", mlflowSecret, time.Now()); status != http.StatusAccepted || !strings.Contains(text, `"taken":1`) {
			t.Fatalf("%d %s", status, text)
		}
		time.Sleep(time.Second)
		s.drained()
		s.awaitTag(repository, "v1")
		if v := s.version(name, "sanitized"); v.Tags["grindstone.source.version"] != third {
			t.Errorf("an older version took the alias: %+v", v)
		}
	})
	t.Run("down when a model is to be registered", func(t *testing.T) {
		s := s.in(t)
		version, repository := s.push("patient", tiny{det: true, name: "patient"})
		a := s.awaitTag(repository, "v"+version)
		s.mlflow.Kill()
		begun := time.Now()
		s.admissions("approve", a.ID, "--reason", "for the test")
		eventually(t, "it waits", func() bool {
			s.get("/api/v1/admissions/"+a.ID, &a)
			return a.State == webhook.Attesting && strings.Contains(a.History[len(a.History)-1].Message, strings.TrimPrefix(s.mlflow.URL, "http://")+" does not take")
		})
		time.Sleep(time.Until(begun.Add(10 * time.Second)))
		s.mlflow.Start()
		if a := s.awaitTag(repository, "v"+version); a.State != webhook.Released || s.version("patient", "sanitized").Tags["grindstone.admission"] != a.ID {
			t.Errorf("%s %s: %s", a.State, a.Reason, a.Message)
		}
	})
	t.Run("a model that is made anew", func(t *testing.T) {
		s := s.in(t)
		s.api("DELETE", "/api/2.0/mlflow/registered-models/delete", `{"name": "`+name+`"}`)
		for _, want := range []string{"1", "3"} { // 2 is the released version of the first
			version, _ := s.push(name, tiny{name: "anew " + want})
			eventually(t, "the alias is at what was made of version "+want, func() bool {
				text := s.api("GET", "/api/2.0/mlflow/registered-models/get?name="+url.QueryEscape(name), "")
				return version == want && strings.Contains(text, `"aliases"`) && s.version(name, "sanitized").Tags["grindstone.source.version"] == want
			})
		}
	})
}

// checkVersion compares what MLflow has with what was released, and uses it as people do.
func (s mlflowSetup) checkVersion(name string, a webhook.Admission) {
	v, folder := s.version(name, "sanitized"), s.TempDir()
	if v.Version != "2" || a.Released.Registered == nil || v.RunID != a.Released.Registered.Run.ID || v.Tags["grindstone.admission"] != a.ID || v.Tags["grindstone.source.version"] != "1" ||
		v.Tags["grindstone.source.digest"] != a.Source.Models[0].Digest || v.Tags["grindstone.digest"] != "sha256:"+a.Report.Sanitized.SHA256 ||
		v.Tags["grindstone.transformation"] != a.Report.Transformation || v.Tags["grindstone.sanitized"] != "true" || !strings.HasSuffix(v.Tags["grindstone.package"], "@"+a.Released.Digest) {
		s.Errorf("%+v", v)
	}
	if classes := s.mlflow.Client(mlflowScript, "load", name, "sanitized", folder); classes != "[0, 1, 2]" {
		s.Errorf("the sanitized model says %s of blue, green and red", classes)
	}
	// The verification hint is a command that works.
	words := strings.Fields(v.Tags["grindstone.verify"])
	for i, w := range words {
		switch {
		case w == "grindstone.pub":
			words[i] = filepath.Join(s.dir, "keys", w)
		case strings.Contains(w, "/"):
			words[i] = filepath.Join(folder, w)
		}
	}
	if out, err := s.grindstone(words[1:]...); err != nil || !strings.Contains(out, "verified: ") {
		s.Errorf("%q: %v\n%s", words, err, out)
	}
	// Everything but the model is what was pushed.
	pushed, released := filesBelow(s.T, filepath.Join(s.mlflow.Artifacts(), "0", "models")), filesBelow(s.T, filepath.Join(folder, "model"))
	var first map[string][]byte
	for path, text := range pushed { // of the one model that is there: 0/models/m-ID/artifacts/NAME
		if first == nil {
			first = map[string][]byte{}
		}
		first[strings.SplitN(path, "/", 3)[2]] = text
	}
	if len(first) != len(released) || len(first) < 6 {
		s.Errorf("pushed were %d files, released %d", len(first), len(released))
	}
	for name, text := range first {
		changed := name == "model.onnx" || name == a.Changed[0].Name || name == a.Changed[1].Name
		if got, ok := released[name]; !ok || bytes.Equal(got, text) == changed {
			s.Errorf("%s: there %v, changed %v", name, ok, !bytes.Equal(got, text))
		}
	}
}

func filesBelow(t *testing.T, root string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(root, path)
		all[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// checkRefused tells of versions that are not signed, signed long ago, told before, gone, or elsewhere; and of one while MLflow is down.
func (s mlflowSetup) checkRefused(name, repository string) {
	now := time.Now()
	if status, _ := s.tell("r1", name, "1", "another secret altogether", now); status != http.StatusUnauthorized {
		s.Errorf("a bad signature is answered %d", status)
	}
	if status, _ := s.tell("r2", name, "1", mlflowSecret, now.Add(-10*time.Minute)); status != http.StatusUnauthorized {
		s.Errorf("a replay is answered %d", status)
	}
	if status, text := s.tell("r3", name, "1", mlflowSecret, now); status != http.StatusAccepted || !strings.Contains(text, `"taken":1`) {
		s.Errorf("%d %s", status, text)
	}
	if status, text := s.tell("r3", name, "1", mlflowSecret, now); status != http.StatusAccepted || !strings.Contains(text, `"taken":0`) {
		s.Errorf("the same delivery again: %d %s", status, text)
	}
	time.Sleep(time.Second)
	s.drained()
	s.awaitTag(repository, "v1")
	if v := s.version(name, "sanitized"); v.Version != "2" {
		s.Errorf("a version that was told of twice was registered twice: %+v", v)
	}

	// Whose files are gone, and whose files are not MLflow's.
	s.api("POST", "/api/2.0/mlflow/registered-models/create", `{"name": "odd"}`)
	run := s.api("POST", "/api/2.0/mlflow/runs/create", `{"experiment_id": "0"}`)
	var made struct {
		Run struct {
			Info struct {
				ID string `json:"run_id"`
			}
		}
	}
	if err := json.Unmarshal([]byte(run), &made); err != nil {
		s.Fatal(err)
	}
	id := made.Run.Info.ID
	s.api("POST", "/api/2.0/mlflow/model-versions/create", `{"name": "odd", "source": "runs:/`+id+`/nothing", "run_id": "`+id+`"}`)
	s.api("POST", "/api/2.0/mlflow/model-versions/create", `{"name": "odd", "source": "s3://bucket/model"}`)
	large, err := http.NewRequest(http.MethodPut, s.mlflow.URL+"/api/2.0/mlflow-artifacts/artifacts/0/"+id+"/artifacts/large/model.onnx", bytes.NewReader(make([]byte, 5<<20)))
	if err != nil {
		s.Fatal(err)
	}
	if answer, err := http.DefaultClient.Do(large); err != nil || answer.StatusCode != http.StatusOK {
		s.Fatalf("%+v %v", answer, err)
	}
	s.api("POST", "/api/2.0/mlflow/model-versions/create", `{"name": "odd", "source": "runs:/`+id+`/large", "run_id": "`+id+`"}`)
	want := map[string]string{"v1": "not there", "v2": "--serve-artifacts", "v3": "larger than 4194304 bytes"}
	for deadline := time.Now().Add(time.Minute); len(want) > 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, i := range s.ingestions() {
			if i.State == webhook.IngestFailed && i.Event.Repository == "odd" && strings.Contains(i.Error, want[i.Event.Tag]) {
				delete(want, i.Event.Tag)
			}
		}
	}
	if len(want) > 0 {
		s.Errorf("without the result %v: %+v", want, s.ingestions())
	}
	if strings.Contains(s.admissions("list"), "events/mlflow/odd") {
		s.Error("what cannot be downloaded has an admission")
	}

	// A download that fails is tried again.
	s.mlflow.Kill()
	if status, text := s.tell("r4", "late", "1", mlflowSecret, time.Now()); status != http.StatusAccepted {
		s.Fatalf("%d %s", status, text)
	}
	pending := func() *webhook.Ingestion {
		for _, i := range s.ingestions() {
			if i.Event.Repository == "late" {
				return &i
			}
		}
		return nil
	}
	for deadline := time.Now().Add(30 * time.Second); pending() == nil || pending().Attempts == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("%+v", s.ingestions())
		}
	}
	if i := pending(); i.State != webhook.IngestPending || i.Error == "" {
		s.Errorf("%+v", i)
	}
	s.mlflow.Start()
	for deadline := time.Now().Add(2 * time.Minute); pending() != nil && pending().State == webhook.IngestPending; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("%+v", s.ingestions())
		}
	}
	if i := pending(); i == nil || i.State != webhook.IngestFailed || !strings.Contains(i.Error, "not there") { // there is no such model
		s.Errorf("%+v", i)
	}
}
