package integration

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// TestUpstream has a model sanitized by a server in front of another registry, whose own logins it leaves in charge or not, and finds
// the sanitized model there, and nothing else of it.
func TestUpstream(t *testing.T) {
	needRuntime(t)
	own := func(t *testing.T) string {
		file := passwords(t, "gate", "alice")
		return testregistry.Distribution(t, "auth: {htpasswd: {realm: upstream, path: \""+file+"\"}}\n")
	}
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("gategate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	credentials := ", username: gate, password_file: " + secret
	for _, c := range []struct {
		name, pusher string
		start        func(*testing.T) string
		upstream     string // of the configuration
		config       string
	}{
		{"distribution, open", "", func(t *testing.T) string { return testregistry.Distribution(t, "") }, "", ""},
		{"olareg, open", "", testregistry.Olareg, "", ""},
		{"distribution, its own logins", "alice", own, credentials, "auth: {passthrough: true}\n"},
		{"distribution, logins here", "bob", own, credentials,
			"auth: {htpasswd: " + strconv.Quote(passwords(t, "bob")) + ", roles: [{who: [bob], repositories: [\"**\"], role: push}]}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := c.start(t)
			s := startServer(t, "--config", tinyConfig(t, "upstream: {url: "+up+c.upstream+"}\n"+c.config))
			model := tiny{name: c.name}.file(t)
			readme := layerFile{"README.md", "text/markdown", []byte("# colours\n")}
			store, pushed := pack(t, readme, model)
			through := repositoryOf(t, s.address, "models/colours", c.pusher)
			upstreamUser := ""
			if c.upstream != "" {
				upstreamUser = "gate"
			}
			direct := repositoryOf(t, strings.TrimPrefix(up, "http://"), "models/colours", upstreamUser)
			got, err := oras.Copy(t.Context(), store, "v1", through, "v1", oras.DefaultCopyOptions)
			if err != nil || got.Digest != pushed.Digest {
				t.Fatalf("push: %v %v", got, err)
			}
			if _, err := direct.Resolve(t.Context(), "v1"); err == nil && s.admissionAs(c.pusher, "models/colours").State != webhook.Released {
				t.Error("the tag is at the upstream before the release")
			}
			a := s.awaitOn("models/colours", apiUser(c.pusher, c.config), 3*time.Minute)
			if a.State != webhook.Released {
				t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
			}
			if a.Source.Identity != c.pusher {
				t.Errorf("pushed by %q, not %q", a.Source.Identity, c.pusher)
			}
			for name, repo := range map[string]*remote.Repository{"through the gateway": through, "at the upstream": direct} {
				d, err := repo.Resolve(t.Context(), "v1")
				if err != nil || d.Digest.String() != a.Released.Digest {
					t.Errorf("%s the tag is %v, %v; released is %s", name, d.Digest, err, a.Released.Digest)
					continue
				}
				copied := memory.New()
				if _, err := oras.Copy(t.Context(), repo, "v1", copied, "", oras.DefaultCopyOptions); err != nil {
					t.Errorf("%s: pull: %v", name, err)
				}
				var bundles int
				err = repo.Referrers(t.Context(), d, "application/vnd.dev.sigstore.bundle.v0.3+json", func(page []ocispec.Descriptor) error {
					bundles += len(page)
					return nil
				})
				if err != nil || bundles != 1 {
					t.Errorf("%s the model has %d attestations, %v", name, bundles, err)
				}
			}
			// Of the pushed model, the upstream has nothing.
			for _, d := range []string{pushed.Digest.String(), a.Source.Models[0].Digest} {
				if _, err := direct.Blobs().Resolve(t.Context(), d); err == nil {
					t.Errorf("the upstream has the blob %s of the pushed model", d)
				}
			}
			if _, err := direct.Resolve(t.Context(), pushed.Digest.String()); err == nil {
				t.Error("the upstream has the pushed manifest")
			}
			// What is not intercepted is the upstream's alone.
			plain := repositoryOf(t, s.address, "charts/colours", c.pusher)
			if _, err := oras.Copy(t.Context(), store, "v1", plain, "v1", oras.DefaultCopyOptions); err != nil {
				t.Fatalf("push to a repository that is not intercepted: %v", err)
			}
			if d, err := repositoryOf(t, strings.TrimPrefix(up, "http://"), "charts/colours", upstreamUser).Resolve(t.Context(), "v1"); err != nil || d.Digest != pushed.Digest {
				t.Errorf("it is at the upstream as %v, %v", d.Digest, err)
			}
			// Whom the upstream, or this server, does not know, gets nothing.
			if c.pusher != "" {
				var refused *errcode.ErrorResponse
				for _, user := range []string{"", "mallory"} {
					_, err := oras.Copy(context.Background(), store, "v1", repositoryOf(t, s.address, "models/other", user), "v1", oras.DefaultCopyOptions)
					if err == nil || errors.As(err, &refused) && refused.StatusCode != http.StatusUnauthorized {
						t.Errorf("a push of %q: %v", user, err)
					}
				}
				if text, err := crane.Manifest(s.address+"/models/colours:v1", crane.Insecure, crane.WithAuth(authn.FromConfig(authn.AuthConfig{Username: c.pusher, Password: c.pusher + c.pusher}))); err != nil {
					t.Errorf("crane: %v %s", err, text)
				}
			}
		})
	}
}

// apiUser is who asks the API: where the upstream has the logins, whoever is on this machine.
func apiUser(pusher, config string) string {
	if strings.Contains(config, "passthrough") {
		return ""
	}
	return pusher
}

// admissionAs is the newest admission of a repository, as a user sees it.
func (s *server) admissionAs(user, repository string) webhook.Admission {
	s.Helper()
	var list struct{ Admissions []webhook.Admission }
	if s.getAs(user, "/api/v1/admissions?repository="+repository, &list); len(list.Admissions) == 0 {
		return webhook.Admission{}
	}
	return list.Admissions[0]
}

// TestUpstreamThatIsAway takes the upstream away while a model is sanitized: the model is held, not lost, and released when a server starts
// that can reach the upstream again. Until then clients are told what is the matter.
func TestUpstreamThatIsAway(t *testing.T) {
	needRuntime(t)
	up := testregistry.NewSwitch(t, testregistry.Distribution(t, ""))
	config := tinyConfig(t, "upstream: {url: "+up.URL+"}\n")
	s := startServer(t, "--config", config)
	store, pushed := pack(t, tiny{name: "while it is away"}.file(t))
	if _, err := oras.Copy(t.Context(), store, "v1", repositoryOf(t, s.address, "models/away", ""), "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	up.Answer(-1)
	var ready struct {
		Checks []struct{ Name, Reason string }
	}
	if status := s.get("/readyz", &ready); status != http.StatusServiceUnavailable || !slices.ContainsFunc(ready.Checks, func(c struct{ Name, Reason string }) bool {
		return c.Name == "registry" && c.Reason != ""
	}) {
		t.Errorf("ready without the upstream: %d %+v", status, ready)
	}
	var text string
	if status := s.get("/v2/charts/x/tags/list", &text); status != http.StatusServiceUnavailable || !strings.Contains(text, `"code":"UNAVAILABLE"`) {
		t.Errorf("%d %s", status, text)
	}
	if a := s.await("models/away", 3*time.Minute); a.State != webhook.Held || a.Reason != webhook.ReasonInternal {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	up.Answer(http.StatusTooManyRequests)
	if status := s.get("/v2/charts/x/tags/list", nil); status != http.StatusTooManyRequests {
		t.Errorf("the upstream's 429 is passed on as %d", status)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	up.Answer(0)
	again := startServerIn(t, s.dir, "--config", config)
	a := again.await("models/away", 3*time.Minute)
	if a.State != webhook.Released || a.Source.Digest != pushed.Digest.String() {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	if d, err := repositoryOf(t, strings.TrimPrefix(up.URL, "http://"), "models/away", "").Resolve(t.Context(), "v1"); err != nil || d.Digest.String() != a.Released.Digest {
		t.Errorf("%v, %v", d.Digest, err)
	}
}
