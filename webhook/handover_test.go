package webhook

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"grindstone/webhook/remotefile"
)

// TestRedirectsOfARegistry: content may come from elsewhere; what is sent is sent to the registry alone, and https stays https.
func TestRedirectsOfARegistry(t *testing.T) {
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = io.WriteString(w, "content")
	}))
	defer elsewhere.Close()
	redirects := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := elsewhere.URL + "/api/v1/admissions/1/retry"
		if r.URL.Path == "/loop" {
			to = "/loop"
		}
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	})
	plain, secure := httptest.NewServer(redirects), httptest.NewTLSServer(redirects)
	defer plain.Close()
	defer secure.Close()
	trusting := &http.Client{Transport: secure.Client().Transport, CheckRedirect: registryClient.CheckRedirect}
	for name, c := range map[string]struct {
		client      *http.Client
		method, url string
		asked       int
	}{
		"a download":     {registryClient, "GET", plain.URL, 1},
		"an upload":      {registryClient, "POST", plain.URL, 0},
		"a manifest":     {registryClient, "PUT", plain.URL, 0},
		"https to http":  {trusting, "GET", secure.URL, 0},
		"round in rings": {registryClient, "GET", plain.URL + "/loop", 0},
	} {
		asked = 0
		r, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.client.Do(r)
		if err == nil {
			answer.Body.Close()
		}
		if asked != c.asked || (c.asked == 0) != errors.Is(err, remotefile.ErrUnsupported) {
			t.Errorf("%s: %d requests elsewhere, %v", name, asked, err)
		}
	}
}

// TestSignedAddressesAreNotShown: the address that a registry sends to for content is signed, and whoever has it can read the content.
func TestSignedAddressesAreNotShown(t *testing.T) {
	other := newFaultyRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/v2/in/m/blobs/") {
			return false
		}
		http.Redirect(w, r, "http://127.0.0.1:1/bucket?Signature=letmein", http.StatusTemporaryRedirect)
		return true
	})
	s := startServer(t, t.TempDir(), "-events", other.host)
	other.push("in/m", "v1", "a")
	s.tell("quay", `{"repository":"in/m","updated_tags":["v1"]}`, bearer)
	var text string
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(text, "127.0.0.1:1/bucket"); time.Sleep(20 * time.Millisecond) {
		if s.get("/api/v1/events", &text); time.Now().After(deadline) {
			t.Fatal(text)
		}
	}
	if strings.Contains(text, "letmein") || strings.Contains(s.Stderr.String(), "letmein") {
		t.Errorf("%s\n%s", text, s.Stderr.String())
	}
}

// TestPausesOfHandovers: a release that is not taken is offered at every pause, not more often whoever asks, and not for ever.
func TestPausesOfHandovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h handovers
		begun := time.Now()
		for n, want := range ingestPauses {
			if h.waits("a") || h.waits("b") {
				t.Fatalf("attempt %d has to wait", n)
			}
			if pause, ok := h.fail("a"); !ok || pause != want || !h.waits("a") {
				t.Fatalf("attempt %d: %v %v", n, pause, ok)
			}
			time.Sleep(want)
		}
		if _, ok := h.fail("a"); ok || time.Since(begun) < 3*time.Hour || len(h.byID) != 0 {
			t.Errorf("another one after %v; %d are remembered", time.Since(begun), len(h.byID))
		}
		h.fail("a")
		if h.done("a"); h.waits("a") {
			t.Error("it waits after it was taken")
		}
	})
}
