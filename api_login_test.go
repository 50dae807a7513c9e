package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"grindstone/internal/testprocess"
)

var listens = regexp.MustCompile(`grindstone listens on http://(\S+)`)

// serveHere runs a server with a user, ada, who operates, and returns its host and port.
func serveHere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("the secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "users"), []byte("ada:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := writeConfig(t, dir, "listen: 127.0.0.1:0\ndir: data\nauth: {htpasswd: users, roles: [{who: [ada], repositories: [\"**\"], role: operator}]}\n")
	server := exec.Command("grindstone", "serve", "--config", config) // a process of its own, which begins others of itself
	server.Env = append(os.Environ(), "ORT_LIBRARY="+filepath.Join(dir, "no-runtime"))
	host := ""
	p := testprocess.Start(t, server, func(line string) bool {
		found := listens.FindStringSubmatch(line)
		if found != nil {
			host = found[1]
		}
		return found != nil
	})
	t.Cleanup(func() { _ = p.Stop() })
	return host
}

// pushModel pushes a package with a model as ada, and returns its digest.
func pushModel(t *testing.T, host, name, tag string) string {
	t.Helper()
	repo, err := remote.NewRepository(host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	repo.Client = &auth.Client{Credential: auth.StaticCredential(host, auth.Credential{Username: "ada", Password: "the secret"})}
	store := memory.New()
	layer, err := oras.PushBytes(t.Context(), store, "application/vnd.example.onnx", []byte("a model"))
	if err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{"org.opencontainers.image.title": "model.onnx"}
	packed, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, "application/vnd.example.model", oras.PackManifestOptions{
		Layers: append(oras.PackManifestOptions{}.Layers, layer), ManifestAnnotations: map[string]string{"team": "signs"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Tag(t.Context(), packed, tag); err != nil {
		t.Fatal(err)
	}
	if _, err := oras.Copy(t.Context(), store, tag, repo, tag, oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	return packed.Digest.String()
}

// TestLoginToTheAPI: a user is told by flags, or is who docker or podman has logged in.
func TestLoginToTheAPI(t *testing.T) {
	host := serveHere(t)
	server := "http://" + host
	for _, name := range []string{"DOCKER_CONFIG", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, t.TempDir())
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("GRINDSTONE_TOKEN", "")
	list := func(stdin string, flags ...string) error {
		t.Helper()
		out, err := typed(t, stdin, append([]string{"admissions", "list", "--server", server}, flags...)...)
		if err == nil && !strings.Contains(out, "no admissions") {
			t.Errorf("%q:\n%s", flags, out)
		}
		return err
	}
	if err := list(""); err == nil || !strings.Contains(err.Error(), "asks for credentials") || !strings.Contains(err.Error(), "--password-stdin") {
		t.Errorf("without a login: %v", err)
	}
	for _, password := range []string{"the secret", "the secret\n", "the secret\r\n"} {
		if err := list(password, "--username", "ada", "--password-stdin"); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
	if err := list("another", "--username", "ada", "--password-stdin"); err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("a wrong password: %v", err)
	}
	for _, flags := range [][]string{{"--username", "ada"}, {"--password-stdin"}, {"--username", "ada", "--password-stdin", "--token", "t"}} {
		if err := list("the secret", flags...); err == nil || exitCode(err) != exitUsage {
			t.Errorf("%q: %v", flags, err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const login = `"YWRhOnRoZSBzZWNyZXQ="` // of ada
	docker, podman := filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	write(docker, `{"auths": {"other.test": {"auth": `+login+`}}}`)
	if err := list(""); err == nil {
		t.Error("the login of another host was used")
	}
	write(podman, `{"auths": {"`+host+`": {"auth": `+login+`}}}`)
	if err := list(""); err != nil {
		t.Errorf("podman's login: %v", err)
	}
	if out, err := typed(t, "", "gc", "--server", server); err != nil { // a request with a body
		t.Errorf("gc with podman's login: %v\n%s", err, out)
	}
	write(podman, "{}")
	write(docker, `{"auths": {"`+host+`": {"auth": `+login+`}}}`)
	if err := list(""); err != nil {
		t.Errorf("docker's login: %v", err)
	}
	if err := list("", "--token", "wrong"); err == nil {
		t.Error("docker's login took the place of the token that was given")
	}
	write(docker, `{"auths": {"registry.test": {"auth": `+login+`}}}`)
	for url, want := range map[string]bool{"https://registry.test/api": true, "http://registry.test/api": false} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if login, err := storedLogin(r); err != nil || (login != "") != want {
			t.Errorf("%s is shown %q, %v", url, login, err)
		}
	}
	write(docker, "{")
	if err := list(""); err == nil || !strings.Contains(err.Error(), "the stored logins cannot be read") || !strings.Contains(err.Error(), docker) {
		t.Errorf("a broken file: %v", err)
	}
}
