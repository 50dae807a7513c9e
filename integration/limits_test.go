package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// TestModelLimits has the real sanitizer refuse models that are over the limits of the configuration, with words that name the limit.
func TestModelLimits(t *testing.T) {
	needRuntime(t)
	images := tinyImages(t)
	for limit, want := range map[string]string{"nodes: 3": "nodes, at most 3", "tensors: 3": "tensors, at most 3", "model: 1MiB": "at most 1048576", "nodes: 9, tensors: 9": ""} {
		t.Run(limit, func(t *testing.T) {
			s := startServer(t, "--config", writeConfig(t, t.TempDir(), "trainer: {steps: 60, batch: 32, learning_rate: 0.05}\nsanitizer: {"+limit+"}\n"), "--data", images)
			file := tiny{name: "a"}.file(t)
			if strings.HasPrefix(limit, "model") {
				file.content = withInitializer(t, file.content, "large", []uint64{1 << 18}, 1<<20)
			}
			s.pushCrane("models/a", "v1", file)
			a := s.await("models/a", 5*time.Minute)
			if over := a.State == webhook.Held && a.Reason == webhook.ReasonUnsupported && strings.Contains(a.Message, "over a limit"); over != (want != "") || !strings.Contains(a.Message, want) {
				t.Errorf("%s %s: %s", a.State, a.Reason, a.Message)
			}
		})
	}
}

// TestJobsPerIdentity: one login that pushes many models does not keep the others waiting.
func TestJobsPerIdentity(t *testing.T) {
	queue := testregistry.FreePort(t)
	s := startServer(t, "--config", writeConfig(t, t.TempDir(), fmt.Sprintf(`
queue: {listen: %q}
sanitizer: {workers: 0, per_identity: 2}
auth: {htpasswd: %q, roles: [{who: [alice, bob], repositories: ["**"], role: push}]}
`, queue, passwords(t, alice, bob))), "--data", tinyImages(t))
	push := func(user, repository string) {
		model := tiny{name: repository}.file(t)
		layer, config := s.upload(user, repository, model.content), s.upload(user, repository, []byte("{}"))
		layer.Annotations = map[string]string{ocispec.AnnotationTitle: model.name}
		config.MediaType = "application/vnd.test.config+json"
		manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}}
		if status, text := s.put(user, repository, "v1", manifest.MediaType, encode(t, manifest)); status != http.StatusCreated {
			t.Fatalf("%d %s", status, text)
		}
	}
	for i := range 5 {
		push(alice, fmt.Sprint("alice/", i))
	}
	push(bob, "bob/0")
	var list struct{ Admissions []webhook.Admission }
	states := func() (sanitizing, waiting, bobs int) {
		s.getAs(alice, "/api/v1/admissions", &list)
		for _, a := range list.Admissions {
			switch {
			case a.Source.Identity == bob && a.State == webhook.Sanitizing:
				bobs++
			case a.State == webhook.Sanitizing:
				sanitizing++
			case a.State == webhook.Quarantined:
				waiting++
			}
		}
		return sanitizing, waiting, bobs
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if a, w, b := states(); a == 2 && w == 3 && b == 1 {
			break
		}
	}
	time.Sleep(500 * time.Millisecond)
	if a, w, b := states(); a != 2 || w != 3 || b != 1 {
		t.Errorf("alice has %d in work and %d waiting, bob %d in work: %+v", a, w, b, list)
	}
}

// TestSlowAndLargeHeads: a head that trickles in is cut off after ten seconds, one that is too large is refused, and others are served meanwhile.
func TestSlowAndLargeHeads(t *testing.T) {
	s := startServer(t)
	if status, _, _ := s.call("", "GET", "/v2/", nil, "X-Large", strings.Repeat("x", 80<<10)); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a head of 80 KiB is answered %d", status)
	}
	begin, ended := time.Now(), make(chan time.Duration, 50)
	for range cap(ended) {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			_, _ = io.WriteString(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			for range 60 {
				if _, err := io.WriteString(c, "x"); err != nil {
					break
				}
				time.Sleep(500 * time.Millisecond)
			}
		}()
		go func() {
			_, _ = io.Copy(io.Discard, c)
			ended <- time.Since(begin)
		}()
	}
	if status, _, _ := s.call("", "GET", "/v2/", nil); status != http.StatusOK {
		t.Errorf("another request is answered %d", status)
	}
	for range cap(ended) {
		select {
		case <-ended:
		case <-time.After(25 * time.Second):
			t.Fatal("a slow head still has its connection")
		}
	}
}

// TestSlowRequests: the time for a whole request is bounded wherever it goes, its body too.
func TestSlowRequests(t *testing.T) {
	s := startServer(t, "--config", writeConfig(t, t.TempDir(), "intercept: [\"models/**\"]\nlimits: {request: 2s}\n"))
	for _, request := range []string{"PUT /v2/models/a/manifests/v1", "PUT /v2/open/a/manifests/v1", "POST /v2/models/a/blobs/uploads/?digest=sha256:" + strings.Repeat("0", 64), "POST /api/v1/gc"} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", s.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			begin := time.Now()
			fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 30000\r\n\r\n", request, s.address)
			go func() {
				for range 150 {
					if _, err := c.Write(bytes.Repeat([]byte(" "), 100)); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
			if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, c)
			if took := time.Since(begin); took < 1500*time.Millisecond || took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestByteLimits: manifests and blobs over the limits of the configuration are answered 413, in the registry's own form.
func TestByteLimits(t *testing.T) {
	s := startServer(t, "--config", writeConfig(t, t.TempDir(), "intercept: [\"models/**\"]\nlimits: {manifest: 64KiB, blob: 1MiB}\n"))
	for _, repository := range []string{"models/a", "open/a"} {
		status, text := s.put("", repository, "v1", ocispec.MediaTypeImageManifest, bytes.Repeat([]byte(" "), 70<<10))
		if status != http.StatusRequestEntityTooLarge || !strings.Contains(text, "MANIFEST_INVALID") {
			t.Errorf("%s: a manifest of 70 KiB is answered %d %s", repository, status, text)
		}
		large := bytes.Repeat([]byte("x"), 2<<20)
		status, _, text = s.call("", "POST", "/v2/"+repository+"/blobs/uploads/?digest="+url.QueryEscape(sum(large)), large)
		if status != http.StatusRequestEntityTooLarge || !strings.Contains(text, "SIZE_INVALID") {
			t.Errorf("%s: a blob of 2 MiB is answered %d %s", repository, status, text)
		}
	}
}

// TestGracePeriod: a request in flight keeps a server that is stopped for as long as the configuration says, and no longer.
func TestGracePeriod(t *testing.T) {
	s := startServer(t, "--config", writeConfig(t, t.TempDir(), "limits: {grace: 1s}\n"))
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /v2/models/a/manifests/v1 HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 30000\r\n\r\n", s.address)
	if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 100 Continue\r\n"))); err != nil { // the body is being read
		t.Fatal(err)
	}
	begin := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < time.Second || took > 20*time.Second || !strings.Contains(s.Stderr.String(), "at the end of the grace period") {
		t.Errorf("it took %v\n%s", took, s.Stderr)
	}
}
