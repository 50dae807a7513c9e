package webhook

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/attest"
	"grindstone/registry"
)

// otherRegistry is a registry that is not fronted.
type otherRegistry struct {
	*testing.T
	host    string
	handler http.Handler
}

func newOtherRegistry(t *testing.T) otherRegistry {
	yes := true
	handler := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}, API: config.ConfigAPI{Referrer: config.ConfigAPIReferrer{Enabled: &yes}}})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return otherRegistry{t, strings.TrimPrefix(server.URL, "http://"), handler}
}

// push pushes a package of one model.
func (o otherRegistry) push(repository, tag, name string) ocispec.Descriptor {
	o.Helper()
	repo, store, d := o.pack(repository, name, nil)
	err := store.Tag(o.Context(), d, tag)
	if err == nil {
		_, err = oras.Copy(o.Context(), store, tag, repo, tag, oras.DefaultCopyOptions)
	}
	if err != nil {
		o.Fatal(err)
	}
	return d
}

// pack makes a package of one model, which refers to its subject where there is one, for a repository.
func (o otherRegistry) pack(repository, name string, subject *ocispec.Descriptor) (*remote.Repository, *memory.Store, ocispec.Descriptor) {
	o.Helper()
	repo, err := remote.NewRepository(o.host + "/" + repository)
	if err != nil {
		o.Fatal(err)
	}
	repo.PlainHTTP = true
	store := memory.New()
	layer, err := oras.PushBytes(o.Context(), store, "application/octet-stream", testModel(name))
	if err != nil {
		o.Fatal(err)
	}
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "model.onnx"}
	d, err := oras.PackManifest(o.Context(), store, oras.PackManifestVersion1_1, "application/vnd.test.model", oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}, Subject: subject})
	if err != nil {
		o.Fatal(err)
	}
	return repo, store, d
}

// distributionEvent is what CNCF distribution tells of the push.
func distributionEvent(id, repository, tag, digest string, at time.Time) string {
	return fmt.Sprintf(`{"events":[{"id":%q,"timestamp":%q,"action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"repository":%q,"tag":%q},"actor":{"name":"ada"}}]}`,
		id, at.Format(time.RFC3339), digest, repository, tag)
}

// tell posts an event and returns the status and the answer.
func (s *serverProcess) tell(kind, body string, header map[string]string) (int, string) {
	s.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+s.address+"/api/v1/events/"+kind, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	for key, value := range header {
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

var bearer = map[string]string{"Authorization": "Bearer " + testSecret}

// TestPushEvents: a registry tells of a push; the model is pulled, sanitized and pushed back with its attestation.
func TestPushEvents(t *testing.T) {
	other := newOtherRegistry(t)
	s := startServer(t, t.TempDir(), "-events", other.host)
	pushed := other.push("in/m", "v1", "a")
	event := distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now())
	if status, text := s.tell("distribution", event, bearer); status != http.StatusAccepted || !strings.Contains(text, `"taken":1`) {
		t.Fatalf("%d %s", status, text)
	}
	a := s.settle()[0]
	s.checkReleased("events/distribution/in/m", "v1", "a", a)
	if a.Source.Identity != "event:distribution:ada" || a.Source.Digest != pushed.Digest.String() {
		t.Errorf("%+v", a.Source)
	}
	r, err := attest.VerifyRef(t.Context(), other.host+"/released/in/m:v1", s.public(), attest.RefOptions{Anonymous: true})
	if err != nil || r.Digest != a.Released.Digest {
		t.Errorf("what was pushed back does not verify: %+v, %v", r, err)
	}
	// The same event again is ignored; a new one of the same package joins; what nobody wants is left out.
	if status, text := s.tell("distribution", event, bearer); status != http.StatusAccepted || !strings.Contains(text, `"taken":0`) {
		t.Errorf("the same event: %d %s", status, text)
	}
	other.push("elsewhere/m", "v1", "b")
	if status, text := s.tell("distribution", distributionEvent("e2", "elsewhere/m", "v1", pushed.Digest.String(), time.Now()), bearer); status != http.StatusAccepted || !strings.Contains(text, `"taken":0`) {
		t.Errorf("another repository: %d %s", status, text)
	}
	other.push("in/m", "v2", "b")
	s.tell("quay", `{"repository":"in/m","updated_tags":["v2"]}`, bearer)
	for len(s.admissions("?repository=events/quay/in/m")) == 0 {
		time.Sleep(20 * time.Millisecond)
	}
	s.settle()
	s.checkReleased("events/quay/in/m", "v2", "b", s.admissions("?repository=events/quay/in/m")[0])
	var left string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s.get("/api/v1/events", &left); left == `{"events":[]}`+"\n" {
			break
		}
	}
	if left != `{"events":[]}`+"\n" {
		t.Errorf("left: %s", left)
	}
}

// TestPushEventSurvivesAKill: what was answered 202 is brought in after a kill -9, also when the other registry is down at first.
func TestPushEventSurvivesAKill(t *testing.T) {
	dir, other := t.TempDir(), newOtherRegistry(t)
	s := startServer(t, dir, "-events", "127.0.0.1:1")
	pushed := other.push("in/m", "v1", "a")
	if status, text := s.tell("distribution", distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now()), bearer); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	s.Kill()
	s = startServer(t, dir, "-events", other.host)
	for deadline := time.Now().Add(30 * time.Second); len(s.admissions("")) == 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	list := s.settle()
	s.checkReleased("events/distribution/in/m", "v1", "a", list[0])
}

func TestPushEventsThatAreRefused(t *testing.T) {
	other := newOtherRegistry(t)
	s := startServer(t, t.TempDir(), "-events", other.host)
	pushed := other.push("in/m", "v1", "a")
	event := distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now())
	for name, c := range map[string]struct {
		kind, body string
		header     map[string]string
		want       int
	}{
		"no secret":       {"distribution", event, nil, 401},
		"a wrong secret":  {"distribution", event, map[string]string{"Authorization": "Bearer nothing"}, 401},
		"a bad signature": {"cloudevents", event, map[string]string{"Webhook-Signature": "v1,AAAA", "Webhook-Id": "1", "Webhook-Timestamp": fmt.Sprint(time.Now().Unix())}, 401},
		"the query":       {"distribution?token=" + strings.ReplaceAll(testSecret, " ", "+"), event, nil, 401},
		"unknown source":  {"nobody", event, bearer, 404},
		"no event":        {"distribution", "{}", bearer, 400},
		"from the future": {"distribution", distributionEvent("e", "in/m", "v1", pushed.Digest.String(), time.Now().Add(2*time.Hour)), bearer, 400},
		"too large":       {"distribution", `{"events":[` + strings.Repeat(" ", maxEventBody) + `]}`, bearer, 413},
	} {
		if status, text := s.tell(c.kind, c.body, c.header); status != c.want {
			t.Errorf("%s is answered %d %s", name, status, text)
		}
	}
	// One that is too old is not taken either, but distribution sends what is answered with an error again for ever, and nothing after it.
	old := distributionEvent("e", "in/m", "v1", pushed.Digest.String(), time.Now().Add(-2*time.Hour))
	if status, text := s.tell("distribution", old, bearer); status != http.StatusAccepted || text != `{"events":1,"taken":0}`+"\n" {
		t.Errorf("an old event is answered %d %s", status, text)
	}
	if list := s.admissions(""); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestEventSecrets(t *testing.T) {
	e, now, body := EventSource{Kind: "harbor", Secret: testSecret}, time.Now(), []byte("body")
	signed := func(at time.Time) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		signWebhook(r, testSecret, "id", at, body)
		return r
	}
	with := func(set func(*http.Request)) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/?token="+strings.ReplaceAll(testSecret, " ", "+"), nil)
		set(r)
		return r
	}
	rotated := signed(now)
	rotated.Header.Set("Webhook-Signature", "v1,AAAA "+rotated.Header.Get("Webhook-Signature"))
	for name, c := range map[string]struct {
		r    *http.Request
		want bool
	}{
		"signed": {signed(now), true}, "signed with two keys": {rotated, true}, "signed long ago": {signed(now.Add(-time.Hour)), false},
		"signed 4 min ago": {signed(now.Add(-4 * time.Minute)), true}, "signed 6 min ago": {signed(now.Add(-6 * time.Minute)), false},
		"signed in 4 min": {signed(now.Add(4 * time.Minute)), true}, "signed in 6 min": {signed(now.Add(6 * time.Minute)), false},
		"bearer": {with(func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testSecret) }), true},
		"whole":  {with(func(r *http.Request) { r.Header.Set("Authorization", testSecret) }), true},
		"basic":  {with(func(r *http.Request) { r.SetBasicAuth("zot", testSecret) }), true},
		"wrong":  {with(func(r *http.Request) { r.SetBasicAuth(testSecret, "") }), false},
		"none":   {with(func(*http.Request) {}), false},
	} {
		if got := e.authentic(c.r, body, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	nameless := httptest.NewRequest(http.MethodPost, "/", nil) // could be sent again and again: duplicates are known by their ids
	signWebhook(nameless, testSecret, "", now, body)
	if e.authentic(nameless, body, now) {
		t.Error("a signature over no id passes")
	}
	if r := signed(now); e.authentic(r, []byte("another body"), now) {
		t.Error("another body passes with the signature")
	}
	mlflow := EventSource{Kind: "mlflow", Secret: testSecret}
	for name, c := range map[string]struct {
		at     time.Time
		secret string
		want   bool
	}{"mlflow": {now, testSecret, true}, "mlflow, long ago": {now.Add(-6 * time.Minute), testSecret, false}, "mlflow, in the future": {now.Add(6 * time.Minute), testSecret, false}, "mlflow, another secret": {now, "another", false}} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		stamp := fmt.Sprint(c.at.Unix())
		r.Header.Set("X-MLflow-Delivery-Id", "id")
		r.Header.Set("X-MLflow-Timestamp", stamp)
		r.Header.Set("X-MLflow-Signature", "v1,"+webhookMAC([]byte(c.secret), "id", stamp, body))
		if got := mlflow.authentic(r, body, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if mlflow.authentic(r, []byte("another body"), now) {
			t.Errorf("%s: another body passes with the signature", name)
		}
	}
	for name, r := range map[string]*http.Request{"bearer": with(func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testSecret) }), "another signature": signed(now)} {
		if mlflow.authentic(r, body, now) {
			t.Errorf("mlflow passes with %s", name)
		}
	}
	hub := EventSource{Kind: "huggingface", Secret: testSecret}
	for secret, want := range map[string]bool{testSecret: true, testSecret + "x": false, testSecret[1:]: false, "": false} {
		r := httptest.NewRequest(http.MethodPost, "/?secret="+strings.ReplaceAll(testSecret, " ", "+"), nil)
		r.Header.Set("Authorization", "Bearer "+testSecret)
		r.Header.Set("X-Webhook-Secret", secret)
		if hub.authentic(r, body, now) != want {
			t.Errorf("hugging face with %q: %v", secret, !want)
		}
	}
	if quay := (EventSource{Kind: "quay", Secret: testSecret}); !quay.authentic(with(func(*http.Request) {}), nil, now) {
		t.Error("quay's token does not pass")
	}
}

// TestFailedIngestion gives up what is not there, and says so.
func TestFailedIngestion(t *testing.T) {
	dir, other := t.TempDir(), newOtherRegistry(t)
	s := startServer(t, dir, "-events", other.host)
	var text string
	if s.get("/api/v1/events", &text); text != `{"events":[]}`+"\n" {
		t.Errorf("no events: %s", text)
	}
	s.tell("quay", `{"repository":"in/nothing","updated_tags":["v1"]}`, bearer)
	var left struct{ Events []Ingestion }
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s.get("/api/v1/events", &left); len(left.Events) == 1 && left.Events[0].State == IngestFailed {
			break
		}
	}
	if len(left.Events) != 1 || left.Events[0].State != IngestFailed || left.Events[0].Error == "" {
		t.Errorf("%+v", left)
	}
	if s.get("/api/v1/events", &text); !strings.Contains(text, `"event":{"repository":"in/nothing","tag":"v1"}`) || strings.Contains(text, "0001-01-01") {
		t.Errorf("the event in the API: %s", text)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "state", "events", "*.json")); len(files) != 1 {
		t.Errorf("files %q", files)
	}
	_ = os.WriteFile(filepath.Join(dir, "state", "events", "broken.json"), []byte("{"), 0o600)
	s.Kill()
	s = startServer(t, dir, "-events", other.host) // a broken file does not keep it from starting
	s.get("/healthz", nil)
}

// TestInProcess streams both ways, and ends with its context.
func TestInProcess(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !IsIngest(r.Context()) {
			t.Error("the request is not marked as the server's own")
		}
		w.Header().Set("Content-Length", r.Header.Get("X-Length"))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, r.Body)
	})
	client := http.Client{Transport: inProcess{echo, "me"}}
	body := strings.Repeat("0123456789abcdef", 1<<16)
	answer, err := client.Post("http://inside/", "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusCreated || string(text) != body || err != nil {
		t.Errorf("%d %d bytes %v", answer.StatusCode, len(text), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hang := http.Client{Transport: inProcess{http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), "me"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://inside/", nil)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, cancel)
	if answer, err := hang.Do(r); err == nil {
		answer.Body.Close()
		t.Error("a request whose context ended is answered")
	}
}

// readBody says how often it was read; each time it takes a while, and gives a byte.
type readBody struct {
	reads int
	pause time.Duration
}

func (b *readBody) Read(p []byte) (int, error) {
	b.reads++
	time.Sleep(b.pause)
	p[0] = ' '
	return 1, nil
}

// TestBodiesOfStrangers: a body is kept in memory before its signature can be checked. Without the secret, or with a signature of long ago, it is not read; and it has to come soon.
func TestBodiesOfStrangers(t *testing.T) {
	dir := t.TempDir()
	p, err := NewPipeline(PipelineConfig{Dir: dir, Events: []EventSource{{Kind: "harbor", Secret: testSecret}, {Kind: "mlflow", Secret: testSecret}, {Kind: "huggingface", Secret: testSecret}}})
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := registry.New(registry.Config{Dir: dir, Intercept: func(string) bool { return true }, Admitter: p})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	server := NewServer(ServerConfig{}, p, gateway, slog.New(slog.DiscardHandler))
	for name, c := range map[string]struct {
		kind string
		age  time.Duration // of the signature
		head string
		want int
	}{
		"no secret":            {"harbor", 0, "", http.StatusUnauthorized},
		"another secret":       {"huggingface", 0, "X-Webhook-Secret", http.StatusUnauthorized},
		"an old signature":     {"harbor", time.Hour, "Webhook", http.StatusUnauthorized},
		"mlflow, old":          {"mlflow", time.Hour, "X-Mlflow", http.StatusUnauthorized},
		"mlflow, not signed":   {"mlflow", 0, "", http.StatusUnauthorized},
		"a body that trickles": {"mlflow", 0, "X-Mlflow", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := &readBody{pause: time.Second}
				r := httptest.NewRequest(http.MethodPost, "/api/v1/events/"+c.kind, body)
				for _, key := range []string{"", "-Id", "-Delivery-Id", "-Signature"} {
					r.Header.Set(c.head+key, "v1,AAAA")
				}
				r.Header.Set(c.head+"-Timestamp", fmt.Sprint(time.Now().Add(-c.age).Unix()))
				w, begun := httptest.NewRecorder(), time.Now()
				server.ServeHTTP(w, r)
				if w.Code != c.want || c.want == http.StatusUnauthorized && body.reads > 0 || time.Since(begun) > 2*eventBodyTime {
					t.Errorf("%d %s after %d reads in %v", w.Code, w.Body, body.reads, time.Since(begun))
				}
			})
		})
	}
}
