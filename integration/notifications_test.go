package integration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// told is an event that a target of notifications was sent.
type told struct {
	target, id, state string
}

// target answers every event with a status, and passes it on. With a secret, it checks the signature as Standard Webhooks describe it.
func target(t *testing.T, name, secret string, status int, to chan<- told) string {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp"), body)
		want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if secret == "" {
			want = ""
		}
		if got := r.Header.Get("Webhook-Signature"); got != want {
			t.Errorf("%s: the signature is %q, want %q", name, got, want)
		}
		var event struct {
			ID   string
			Data struct{ State string }
		}
		if err := json.Unmarshal(body, &event); err != nil {
			t.Errorf("%s: %v: %s", name, err, body)
		}
		w.WriteHeader(status)
		to <- told{name, event.ID, event.Data.State}
	}))
	t.Cleanup(h.Close)
	return h.URL
}

// TestNotificationTargets configures targets of the real server for some states and repositories, signed and not, and operates them with its commands: they
// are told what they want to know and nothing else, and again when an operator asks for it.
func TestNotificationTargets(t *testing.T) {
	const secret = "a secret of the configuration"
	dir, events := t.TempDir(), make(chan told, 100)
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--config", writeConfig(t, dir, fmt.Sprintf(`
notify:
  all: {url: %q, secret_file: secret}
  denials: {url: %q, states: [denied]}
  models-b: {url: %q, repositories: ["models/b"]}
  broken: {url: %q, states: [denied]}
`, target(t, "all", secret, 204, events), target(t, "denials", "", 200, events), target(t, "models-b", "", 200, events), target(t, "broken", "", 500, events))))
	// await returns the next n events, and finds that no other comes with them.
	await := func(want ...string) (ids []string) {
		t.Helper()
		var got []string
		for range want {
			select {
			case e := <-events:
				got, ids = append(got, e.target+" "+e.state), append(ids, e.id)
			case <-time.After(30 * time.Second):
				t.Fatalf("told %q, want %q", got, want)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("told %q, want %q", got, want)
		}
		return ids
	}
	a, b := s.pushTiny("models/a", "v1", "a"), s.pushTiny("models/b", "v1", "b")
	await("all held", "all held", "models-b held")
	s.admissions("approve", b.ID, "--reason", "built in house")
	await("all released", "models-b released")
	s.admissions("reject", a.ID, "--reason", "unknown origin")
	first := await("all denied", "broken denied", "denials denied")[0]

	notifications := func(args ...string) string {
		t.Helper()
		out, err := s.grindstone(append([]string{"notifications", "--server", "http://" + s.address}, args...)...)
		if err != nil {
			t.Fatalf("notifications %q: %v\n%s", args, err, out)
		}
		return out
	}
	line := ""
	for deadline := time.Now().Add(20 * time.Second); line == "" && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // until the attempt is recorded
		for l := range strings.Lines(notifications("list", "--target", "broken", "--state", "pending")) {
			if strings.Contains(l, "the target answers 500") {
				line = l
			}
		}
	}
	if line == "" {
		t.Fatalf("no failed attempt in\n%s", notifications("list"))
	}
	if out := notifications("list", "--state", "delivered", "--target", "denials"); strings.Count(out, "\n") != 2 || !strings.Contains(out, a.ID) {
		t.Errorf("list:\n%s", out)
	}
	if out := notifications("list", "--admission", b.ID); strings.Contains(out, a.ID) || strings.Count(out, b.ID) != 4 {
		t.Errorf("list --admission:\n%s", out)
	}
	id := strings.Fields(notifications("list", "--target", "denials"))[7] // after the heads of the columns
	if out := notifications("show", id); !strings.Contains(out, "unknown origin") || !strings.Contains(out, "delivered") || !strings.Contains(out, "200") {
		t.Errorf("show:\n%s", out)
	}
	notifications("redeliver", id)
	if again := await("denials denied")[0]; again != first {
		t.Errorf("delivered again as event %s, was %s", again, first)
	}
	if out, err := s.grindstone("notifications", "--server", "http://"+s.address, "show", "nothing"); err == nil || !strings.Contains(out, "404") {
		t.Errorf("an unknown delivery: %v\n%s", err, out)
	}
}
