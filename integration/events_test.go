package integration

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
