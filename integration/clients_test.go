package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// The clients that people have, run as they are: `make test-clients`. Those that Go can build are built once; the others are looked for on
// the PATH. A row of docs/clients.md is a subtest here. The libraries oras-go and go-containerregistry are tested in registry.

// program finds a client, in the order of preference: Go builds it, or it is there.
type program struct{ name, pkg, version string }

var (
	orasCLI  = program{"oras", "oras.land/oras/cmd/oras", "v1.3.6"}
	craneCLI = program{"crane", "github.com/google/go-containerregistry/cmd/crane", "v0.22.1"}
	regctl   = program{"regctl", "github.com/regclient/regclient/cmd/regctl", "v0.11.7"}
	helm     = program{"helm", "helm.sh/helm/v4/cmd/helm", "v4.3.1"}
	cosign   = program{"cosign", "github.com/sigstore/cosign/v3/cmd/cosign", "v3.1.3"}
	cosign2  = program{"cosign", "github.com/sigstore/cosign/v2/cmd/cosign", "v2.6.5"}
	skopeo   = program{name: "skopeo"} // Debian, Fedora and Homebrew have it
	kit      = program{name: "kit"}    // github.com/kitops-ml/kitops
	modctl   = program{name: "modctl"} // github.com/modelpack/modctl
)

func (p program) path(t *testing.T) string {
	t.Helper()
	if p.pkg != "" {
		return testregistry.Program(t, p.pkg, p.version)
	}
	path, err := exec.LookPath(p.name)
	if err != nil {
		t.Skipf("%s is not on the PATH, and Go cannot get it: this row is NOT tested here", p.name)
	}
	return path
}

// shell runs programs in a folder that is their home as well.
type shell struct {
	*testing.T
	dir string
	s   *server
}

func newShell(t *testing.T, s *server) *shell {
	t.Helper()
	h := &shell{t, t.TempDir(), s}
	h.write("model.onnx", tiny{name: t.Name()}.file(t).content)
	h.write("README.md", []byte("# Colours\n"))
	return h
}

func (h *shell) write(name string, content []byte) {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
		h.Fatal(err)
	}
}

func (h *shell) read(name string) []byte {
	h.Helper()
	content, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		h.Fatal(err)
	}
	return content
}

// try runs a program and returns all that it says.
func (h *shell) try(p program, args ...string) (string, error) {
	h.Helper()
	path := p.path(h.T)
	ctx, cancel := context.WithTimeout(h.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "XDG_CONFIG_HOME="+h.dir, "XDG_CACHE_HOME="+h.dir, "XDG_DATA_HOME="+h.dir, "XDG_RUNTIME_DIR="+h.dir,
		"DOCKER_CONFIG="+h.dir, "REGISTRY_AUTH_FILE="+filepath.Join(h.dir, "auth.json"), "KITOPS_HOME="+filepath.Join(h.dir, "kitops"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// run is try for what must succeed.
func (h *shell) run(p program, args ...string) string {
	h.Helper()
	out, err := h.try(p, args...)
	if err != nil {
		h.Fatalf("%s %s: %v\n%s", p.name, strings.Join(args, " "), err, out)
	}
	return out
}

// client is one that can push and pull models. push and pull get host/repository:tag; pull leaves the model in pulled/ under its name.
type client struct {
	program
	more  []program // that it needs
	push  func(h *shell, reference string)
	pull  func(h *shell, reference string) (said string, err error)
	model string // its path below pulled/; default model.onnx
	mute  bool   // pull says "not found" and no more: it does not print what the registry answers
	user  string // it reads back what it pushed, which only whoever is logged in can do
}

var clients = []client{
	{
		program: orasCLI,
		push: func(h *shell, to string) {
			said := h.run(orasCLI, "push", "--plain-http", to, "model.onnx:application/onnx", "README.md:text/markdown")
			if strings.Contains(said, "WARN") {
				h.Errorf("a push is not like any other: %s", said)
			}
		},
		pull: func(h *shell, from string) (string, error) {
			return h.try(orasCLI, "pull", "--plain-http", "-o", "pulled", from)
		},
	},
	{
		program: craneCLI, model: "models/model.onnx",
		push: func(h *shell, to string) {
			h.write("layer.tar", tarFiles(h.T, "models/model.onnx", string(h.read("model.onnx")), "models/README.md", string(h.read("README.md"))))
			h.run(craneCLI, "append", "--insecure", "--oci-empty-base", "-f", "layer.tar", "-t", to)
		},
		pull: func(h *shell, from string) (string, error) {
			said, err := h.try(craneCLI, "export", "--insecure", from, "pulled.tar")
			if err == nil {
				h.unpack("pulled.tar")
			}
			return said, err
		},
	},
	{
		program: regctl,
		push: func(h *shell, to string) {
			h.run(regctl, "registry", "set", "--tls", "disabled", h.s.address)
			h.run(regctl, "artifact", "put", "--artifact-type", "application/vnd.test.model", "--file-title", "-f", "model.onnx", "--file-media-type", "application/onnx",
				"-f", "README.md", "--file-media-type", "text/markdown", to)
		},
		pull: func(h *shell, from string) (string, error) {
			h.write("pulled/.keep", nil) // it wants a folder that is there
			return h.try(regctl, "artifact", "get", "-o", "pulled", from)
		},
	},
	{
		program: skopeo, more: []program{craneCLI}, model: "models/model.onnx",
		push: func(h *shell, to string) { // skopeo makes no images: it copies one from a repository that is not intercepted
			h.write("layer.tar", tarFiles(h.T, "models/model.onnx", string(h.read("model.onnx"))))
			from := h.s.address + "/public/skopeo:v1"
			h.run(craneCLI, "append", "--insecure", "--oci-empty-base", "-f", "layer.tar", "-t", from)
			h.run(skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+from, "docker://"+to)
		},
		pull: func(h *shell, from string) (string, error) {
			said, err := h.try(skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+from, "dir:image")
			if err == nil {
				h.write("pulled.tar.gz", h.read("image/"+onlyLayer(h, "image/manifest.json").Digest.Encoded()))
				h.unpack("pulled.tar.gz")
			}
			return said, err
		},
	},
	{
		program: kit, mute: true,
		push: func(h *shell, to string) {
			h.write("Kitfile", []byte("manifestVersion: 1.0.0\npackage: {name: colours}\nmodel: {name: colours, path: model.onnx}\ndocs: [{path: README.md}]\n"))
			h.run(kit, "pack", ".", "-t", to)
			h.run(kit, "push", "--plain-http", to)
			h.run(kit, "remove", to) // what was packed, so that it must be pulled
		},
		pull: func(h *shell, from string) (string, error) {
			return h.try(kit, "unpack", "--plain-http", "-d", "pulled", from)
		},
	},
	{
		program: modctl, mute: true, user: "alice",
		push: func(h *shell, to string) {
			h.write("Modelfile", []byte("NAME colours\nFORMAT onnx\nMODEL model.onnx\nDOC README.md\n"))
			h.run(modctl, "login", "--plain-http", "-u", "alice", "-p", "alicealice", "--password-stdin=false", h.s.address)
			h.run(modctl, "build", "-t", to, ".")
			h.run(modctl, "push", "--plain-http", to)
		},
		pull: func(h *shell, from string) (string, error) {
			return h.try(modctl, "pull", "--plain-http", "--extract-from-remote", "--extract-dir", "pulled", from)
		},
	},
}

// unpack writes the files of a tar archive, compressed or not, below pulled/.
func (h *shell) unpack(archive string) {
	h.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, "pulled"), 0o700); err != nil {
		h.Fatal(err)
	}
	if out, err := exec.CommandContext(h.Context(), "tar", "-xf", filepath.Join(h.dir, archive), "-C", filepath.Join(h.dir, "pulled")).CombinedOutput(); err != nil {
		h.Fatalf("tar: %v\n%s", err, out)
	}
}

func onlyLayer(h *shell, file string) ocispec.Descriptor {
	h.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(h.read(file), &m); err != nil || len(m.Layers) != 1 {
		h.Fatalf("%v, %d layers", err, len(m.Layers))
	}
	return m.Layers[0]
}

var namesAdmission = regexp.MustCompile(`admission [0-9a-f-]{36} is in state [a-z]+`)

// TestClients has every client push a model, be told where it is, and pull the sanitized one.
func TestClients(t *testing.T) {
	needPrograms(t)
	needRuntime(t)
	open := startServer(t, "--config", tinyConfig(t, ""))
	closed := startServer(t, "--config", tinyConfig(t, "auth: {htpasswd: \""+passwords(t, "alice")+"\", roles: [{who: [alice], repositories: [\"**\"], role: push}]}\n"))
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			for _, p := range append(c.more, c.program) {
				p.path(t)
			}
			s := *open
			if c.user != "" {
				s = *closed
			}
			s.T = t
			h := newShell(t, &s)
			repository := "models/" + c.name
			reference := s.address + "/" + repository + ":v1"
			c.push(h, reference)
			said, err := c.pull(h, reference)
			if err == nil {
				t.Fatalf("the model is pulled before it is released:\n%s", said)
			} else if !namesAdmission.MatchString(said) && !c.mute {
				t.Errorf("a refused pull says\n%s", said)
			} else if namesAdmission.MatchString(said) && c.mute {
				t.Errorf("it tells the reason by now: take that into docs/clients.md\n%s", said)
			}
			if a := s.awaitOn(repository, c.user, 5*time.Minute); a.State != webhook.Released {
				t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
			}
			if said, err := c.pull(h, reference); err != nil {
				t.Fatalf("pull: %v\n%s", err, said)
			}
			model := c.model
			if model == "" {
				model = "model.onnx"
			}
			checkSanitized(t, h.read("model.onnx"), h.read(filepath.Join("pulled", model)))
		})
	}
}

// TestClientHelm pushes a chart, which is no model: it passes, to whatever repository.
func TestClientHelm(t *testing.T) {
	needPrograms(t)
	s := startServer(t, "--config", tinyConfig(t, ""))
	h := newShell(t, s)
	h.write("colours/Chart.yaml", []byte("apiVersion: v2\nname: colours\nversion: 0.1.0\n"))
	h.write("colours/templates/config.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: colours}\n"))
	h.run(helm, "package", "colours")
	for _, repository := range []string{"charts", "models/charts"} {
		h.run(helm, "push", "colours-0.1.0.tgz", "oci://"+s.address+"/"+repository, "--plain-http")
		if err := os.MkdirAll(filepath.Join(h.dir, repository), 0o700); err != nil {
			t.Fatal(err)
		}
		h.run(helm, "pull", "oci://"+s.address+"/"+repository+"/colours", "--version", "0.1.0", "--plain-http", "-d", repository)
		if !bytes.Equal(h.read("colours-0.1.0.tgz"), h.read(repository+"/colours-0.1.0.tgz")) {
			t.Errorf("%s: the chart is not the one that was pushed", repository)
		}
	}
}

// TestClientCosign verifies a released model by cosign with nothing but the server's public key: the referrer, the legacy tag, and a file
// with its bundle. What is not attested, or by another key, or of another type, it refuses.
func TestClientCosign(t *testing.T) {
	needPrograms(t)
	needRuntime(t)
	s := startServer(t, "--config", tinyConfig(t, ""))
	h := newShell(t, s)
	reference := s.address + "/models/signed"
	h.run(orasCLI, "push", "--plain-http", reference+":v1", "model.onnx:application/onnx")
	a := s.await("models/signed", 5*time.Minute)
	if a.State != webhook.Released {
		t.Fatalf("%s %s: %s", a.State, a.Reason, a.Message)
	}
	h.run(orasCLI, "pull", "--plain-http", "-o", "pulled", reference+":v1")
	h.run(orasCLI, "manifest", "fetch", "--plain-http", "-o", "referrer.json", reference+"@"+a.Released.Attestation)
	h.run(orasCLI, "blob", "fetch", "--plain-http", "-o", "bundle.json", reference+"@"+onlyLayer(h, "referrer.json").Digest.String())
	h.write("empty-root.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
	key := filepath.Join(s.dir, "keys", "grindstone.pub")
	t.Setenv("COSIGN_PASSWORD", "")

	const sanitized, approved = "https://grindstone.dev/sanitized-model/v1", "https://grindstone.dev/approved-model/v1"
	released := reference + "@" + a.Released.Digest
	for _, v := range []struct {
		name          string
		program       program
		legacy, image []string // further flags: to look under the legacy tag, and to look at an image at all
		file          bool     // it verifies files
	}{
		{"cosign 3", cosign, []string{"--new-bundle-format=false"}, nil, true},
		{"cosign 2", cosign2, nil, []string{"--trusted-root", "empty-root.json"}, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			h := &shell{t, h.dir, s}
			h.run(v.program, "generate-key-pair", "--output-key-prefix", strings.ReplaceAll(v.name, " ", ""))
			other := strings.ReplaceAll(v.name, " ", "") + ".pub"
			image := func(kind, key, reference string, more ...string) []string {
				args := append([]string{"verify-attestation", "--allow-http-registry", "--insecure-ignore-tlog=true", "--type", kind, "--key", key}, v.image...)
				return append(append(args, more...), reference)
			}
			file := func(key, file string) []string {
				return []string{"verify-blob-attestation", "--bundle", "bundle.json", "--insecure-ignore-tlog", "--type", sanitized, "--key", key, file}
			}
			for _, c := range []struct {
				name  string
				args  []string
				holds bool
			}{
				{"the package", image(sanitized, key, released), true},
				{"the package, by tag", image(sanitized, key, reference+":v1"), true},
				{"the legacy tag", image(sanitized, key, released, v.legacy...), true},
				{"the file with its bundle", file(key, "pulled/model.onnx"), true},
				{"another key", image(sanitized, other, released), false},
				{"another key, legacy tag", image(sanitized, other, released, v.legacy...), false},
				{"another key, file", file(other, "pulled/model.onnx"), false},
				{"approved is not sanitized", image(approved, key, released), false},
				{"the pushed manifest", image(sanitized, key, reference+"@"+a.Source.Digest), false},
				{"the pushed file", file(key, "model.onnx"), false},
			} {
				if c.args[0] == "verify-blob-attestation" && !v.file {
					continue
				}
				if out, err := h.try(v.program, c.args...); (err == nil) != c.holds {
					t.Errorf("%s: %v\n%s", c.name, err, out)
				}
			}
		})
	}
}
