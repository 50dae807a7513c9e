package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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

// TestLimitsOfEvents: the server's file says how many packages are brought in at once, and for how long the records of those that could not be are kept.
func TestLimitsOfEvents(t *testing.T) {
	var inside, most atomic.Int32
	held := make(chan struct{})
	open := sync.OnceFunc(func() { close(held) })
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/in/") {
			for n := inside.Add(1); n > most.Load(); n = inside.Load() {
				most.Store(n)
			}
			<-held
			inside.Add(-1)
		}
		http.NotFound(w, r)
	}))
	defer gate.Close()
	defer open() // else a failure waits for the gate
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("a secret of the registry"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--config", writeConfig(t, dir, "limits: {events: 3, event_records: 5m}\nevents: {quay: {registry: \""+gate.URL+"\", secret_file: secret}}\n"))
	for i := range 6 {
		r, err := http.NewRequest(http.MethodPost, "http://"+s.address+"/api/v1/events/quay", strings.NewReader(fmt.Sprintf(`{"repository": "in/m%d", "updated_tags": ["v1"]}`, i)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer a secret of the registry")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != http.StatusAccepted {
			t.Fatalf("event %d is answered %s", i, answer.Status)
		}
	}
	eventually(t, "three downloads wait", func() bool { return inside.Load() == 3 })
	time.Sleep(time.Second) // for a fourth
	open()
	records := func() (failed []webhook.Ingestion) {
		files, _ := filepath.Glob(filepath.Join(s.dir, "state", "events", "*.json"))
		for _, path := range files {
			var i webhook.Ingestion
			if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &i) == nil && i.State == webhook.IngestFailed {
				failed = append(failed, i)
			}
		}
		return failed
	}
	eventually(t, "all have failed", func() bool { return len(records()) == 6 })
	if most.Load() != 3 {
		t.Errorf("%d downloads at once; the limit is 3", most.Load())
	}
	for _, i := range records() {
		if left := time.Until(i.ExpiresAt); left > 5*time.Minute || left < 3*time.Minute {
			t.Errorf("%s is kept for %v more, of 5m", i.Event.Repository, left)
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}
