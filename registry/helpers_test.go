package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// desk is an Admitter that keeps what it was asked and answers as told.
type desk struct {
	mu       sync.Mutex
	pushes   []Push
	denial   *Denial
	err      error
	statuses map[string]Status // repository + " " + reference
}

func (d *desk) Admit(_ context.Context, p Push) (*Denial, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pushes = append(d.pushes, p)
	if d.denial == nil && d.err == nil {
		for _, ref := range []string{p.Tag, p.Digest} {
			d.statuses[p.Repository+" "+ref] = Status{ID: "adm-1", State: "quarantined"}
		}
	}
	return d.denial, d.err
}

func (d *desk) Status(repository, reference string) (Status, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.statuses[repository+" "+reference]
	return s, ok
}

func (d *desk) answer(denial *Denial, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.denial, d.err = denial, err
}

func (d *desk) last(t *testing.T) Push {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pushes) == 0 {
		t.Fatal("the admitter was not asked")
	}
	return d.pushes[len(d.pushes)-1]
}

// server is a gateway behind HTTP on loopback. Repositories below models/ are intercepted.
type server struct {
	*testing.T
	g      *Gateway
	dir    string
	config Config
	desk   *desk
	host   string // host:port
}

func serve(t *testing.T, dir string, limits Limits) *server {
	t.Helper()
	return serveWith(t, Config{Dir: dir, Limits: limits})
}

// serveWith serves with a configuration that lacks what is the same in all tests.
func serveWith(t *testing.T, c Config) *server {
	t.Helper()
	s := &server{T: t, dir: c.Dir, desk: &desk{statuses: map[string]Status{}}}
	c.Admitter = s.desk
	c.Intercept = func(repository string) bool { return strings.HasPrefix(repository, "models/") }
	c.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s.config = c
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.g = g
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.ServeHTTP(w, r.WithContext(WithIdentity(r.Context(), r.Header.Get("X-Test-Identity"))))
	}))
	s.host = strings.TrimPrefix(h.URL, "http://")
	t.Cleanup(func() {
		h.Close()
		if s.g != nil {
			if err := s.g.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// restart closes the gateway and returns one on the same directory that knows the same admissions.
func (s *server) restart() *server {
	s.Helper()
	if err := s.g.Close(); err != nil {
		s.Fatal(err)
	}
	s.g = nil
	again := serveWith(s.T, s.config)
	again.desk = s.desk
	again.g.admitter = s.desk
	return again
}

type response struct {
	status int
	header http.Header
	body   string
}

// errors returns the codes and messages of an OCI error body.
func (r response) errors(t *testing.T) (codes []string, messages string) {
	t.Helper()
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || len(body.Errors) == 0 {
		t.Fatalf("status %d: not an OCI error: %q (%v)", r.status, r.body, err)
	}
	for _, e := range body.Errors {
		codes = append(codes, e.Code)
		messages += e.Message + "\n"
	}
	return codes, messages
}

// do makes a request without any client library in between. header is a list of name, value, …
func (s *server) do(method, path string, body io.Reader, header ...string) response {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, "http://"+s.host+path, body)
	if err != nil {
		s.Fatal(err)
	}
	if strings.Contains(path, "/manifests/") { // without it distribution answers an OCI manifest with 404
		r.Header["Accept"] = []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex}
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		s.Fatal(err)
	}
	return response{w.StatusCode, w.Header, string(b)}
}

func (s *server) expect(want int, method, path string, body io.Reader, header ...string) response {
	s.Helper()
	r := s.do(method, path, body, header...)
	if r.status != want {
		s.Fatalf("%s %s: status %d, want %d: %s", method, path, r.status, want, r.body)
	}
	return r
}

// repository returns an ORAS client that does not repeat requests.
func (s *server) repository(name string) *remote.Repository {
	s.Helper()
	repo, err := remote.NewRepository(s.host + "/" + name)
	if err != nil {
		s.Fatal(err)
	}
	repo.PlainHTTP = true
	repo.Client = &http.Client{Transport: &retry.Transport{Policy: func() retry.Policy { return &retry.GenericPolicy{Retryable: never} }}}
	return repo
}

func never(*http.Response, error) (bool, error) { return false, nil }

// pusher is who pushes blobs and packages.
const pusher = "ci@example.org"

// putBlob uploads a blob with one POST, or as distribution has it, with POST and PUT.
func (s *server) putBlob(repository string, content []byte) ocispec.Descriptor {
	s.Helper()
	d := digest.FromBytes(content)
	header := []string{"Content-Type", "application/octet-stream", "X-Test-Identity", pusher}
	r := s.do("POST", "/v2/"+repository+"/blobs/uploads/?digest="+d.String(), bytes.NewReader(content), header...)
	if r.status == http.StatusAccepted {
		r = s.do("PUT", withQuery(r.header.Get("Location"), "digest="+d.String()), bytes.NewReader(content), header...)
	}
	if r.status != http.StatusCreated {
		s.Fatalf("upload: %d %s", r.status, r.body)
	}
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(content))}
}

// withQuery adds a parameter to a URL.
func withQuery(url, parameter string) string {
	if strings.Contains(url, "?") {
		return url + "&" + parameter
	}
	return url + "?" + parameter
}

// catalog reads the list of repositories; "" from a backend that has none.
func (s *server) catalog() string {
	s.Helper()
	r := s.do("GET", "/v2/_catalog", nil)
	switch r.status {
	case http.StatusOK:
		return r.body
	case http.StatusNotFound:
		return ""
	}
	s.Fatalf("catalog: %d %s", r.status, r.body)
	return ""
}

// model returns a small ONNX file: a graph of a name, with an IR version and an opset.
func model(name string) []byte {
	graph := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), name)
	opset := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 17)
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 8)
	b = protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), graph)
	return protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), opset)
}

func titled(d ocispec.Descriptor, mediaType, title string) ocispec.Descriptor {
	d.MediaType = mediaType
	if title != "" {
		d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	}
	return d
}

// fixture is a package as it was pushed.
type fixture struct {
	manifest []byte
	digest   digest.Digest
	model    []byte
	readme   []byte
	layers   []ocispec.Descriptor
}

// pushPackage pushes a package of a model, external data and a readme with plain requests and returns it. Its manifest is
// spaced and ordered as no encoder would do it.
func (s *server) pushPackage(repository, reference string, want int) (fixture, response) {
	s.Helper()
	f := fixture{model: model("pushed by a third party"), readme: []byte("# A model\n")}
	config := titled(s.putBlob(repository, []byte(`{"format":"onnx"}`)), "application/vnd.cncf.model.config.v1+json", "")
	f.layers = []ocispec.Descriptor{
		titled(s.putBlob(repository, f.readme), "text/markdown", "README.md"),
		titled(s.putBlob(repository, f.model), "application/vnd.cncf.model.weight.v1.raw", "net/model.onnx"),
		titled(s.putBlob(repository, []byte("raw weights")), "application/octet-stream", "net/model.onnx.data"),
	}
	raw, err := json.MarshalIndent(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.cncf.model.manifest.v1+json", Config: config, Layers: f.layers,
		Annotations: map[string]string{"org.example.note": "größer <als> &"},
	}, " ", "\t ")
	if err != nil {
		s.Fatal(err)
	}
	f.manifest = append([]byte("\n"), append(raw, '\n', ' ')...)
	f.digest = digest.FromBytes(f.manifest)
	r := s.expect(want, "PUT", "/v2/"+repository+"/manifests/"+reference, bytes.NewReader(f.manifest),
		"Content-Type", ocispec.MediaTypeImageManifest, "X-Test-Identity", pusher)
	return f, r
}
