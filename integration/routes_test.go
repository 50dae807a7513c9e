package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/internal/testregistry"
)

// The people of the tests of routes. Everybody's password is their name, twice.
const (
	alice = "alice" // pushed what is in quarantine
	bob   = "bob"   // may push to the same repository
	carol = "carol" // may pull from it
	olga  = "olga"
	eve   = "eve" // logs in and may do nothing
)

// routesConfig has no clean dataset, so that models stay in quarantine.
func routesConfig(t *testing.T, upstream string) string {
	t.Helper()
	return writeConfig(t, t.TempDir(), fmt.Sprintf(`
intercept: ["models/**"]
upstream: {url: %q}
auth:
  htpasswd: %q
  roles:
    - {who: [%s, %s], repositories: ["**"], role: push}
    - {who: [%s], repositories: ["**"], role: pull}
    - {who: [%s], repositories: ["**"], role: operator}
`, upstream, passwords(t, alice, bob, carol, olga, eve), alice, bob, carol, olga))
}

// quarantined is what alice pushed to models/secret: a model, in an index of one, with a signature.
type quarantined struct {
	manifest, index, signature []byte
	model, readme, config      []byte
}

func sum(content []byte) string { return digest.FromBytes(content).String() }

// contents are all the texts that nobody else may see.
func (q quarantined) contents() map[string][]byte {
	return map[string][]byte{"manifest": q.manifest, "index": q.index, "signature": q.signature, "model": q.model, "readme": q.readme, "config": q.config}
}

// call makes a request as a user, without any client library.
func (s *server) call(user, method, path string, body []byte, header ...string) (int, http.Header, string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, "http://"+s.address+path, bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if user != "" {
		r.SetBasicAuth(user, user+user)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

// upload uploads a blob as a user.
func (s *server) upload(user, repository string, content []byte) ocispec.Descriptor {
	s.Helper()
	status, header, text := s.call(user, "POST", "/v2/"+repository+"/blobs/uploads/", nil)
	if status != http.StatusAccepted {
		s.Fatalf("POST: %d %s", status, text)
	}
	to := header.Get("Location")
	if strings.Contains(to, "?") {
		to += "&digest=" + sum(content)
	} else {
		to += "?digest=" + sum(content)
	}
	if status, _, text := s.call(user, "PUT", to, content); status != http.StatusCreated {
		s.Fatalf("PUT %s: %d %s", to, status, text)
	}
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// put pushes a manifest as a user and returns the status and the answer.
func (s *server) put(user, repository, reference, mediaType string, manifest []byte) (int, string) {
	s.Helper()
	status, _, text := s.call(user, "PUT", "/v2/"+repository+"/manifests/"+reference, manifest, "Content-Type", mediaType)
	return status, text
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func describe(content []byte, mediaType, title string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if title != "" {
		d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	}
	return d
}

// pushSecret pushes what is to stay secret.
func (s *server) pushSecret() quarantined {
	s.Helper()
	const repository = "models/secret"
	q := quarantined{model: tiny{name: "a secret"}.file(s.T).content, readme: []byte("# a secret readme\n"), config: []byte(`{"secret":"config"}`)}
	v2 := specs.Versioned{SchemaVersion: 2}
	q.manifest = encode(s.T, ocispec.Manifest{
		Versioned: v2, MediaType: ocispec.MediaTypeImageManifest, Config: describe(q.config, "application/json", ""),
		Layers: []ocispec.Descriptor{describe(q.model, "application/onnx", "model.onnx"), describe(q.readme, "text/markdown", "README.md")},
	})
	subject := describe(q.manifest, ocispec.MediaTypeImageManifest, "")
	q.index = encode(s.T, ocispec.Index{Versioned: v2, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{subject}})
	q.signature = encode(s.T, ocispec.Manifest{
		Versioned: v2, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/example.signature",
		Config: describe(q.config, "application/json", ""), Layers: []ocispec.Descriptor{describe(q.model, "application/onnx", "model.onnx")}, Subject: &subject,
	})
	for _, content := range [][]byte{q.model, q.readme, q.config} {
		s.upload(alice, repository, content)
	}
	for _, m := range []struct {
		reference, mediaType string
		raw                  []byte
	}{
		{"v1", ocispec.MediaTypeImageManifest, q.manifest},
		{"all", ocispec.MediaTypeImageIndex, q.index},
		{sum(q.signature), ocispec.MediaTypeImageManifest, q.signature},
	} {
		if status, text := s.put(alice, repository, m.reference, m.mediaType, m.raw); status != http.StatusCreated {
			s.Fatalf("push of %s: %d %s", m.reference, status, text)
		}
	}
	return q
}

// TestQuarantineByEveryRoute walks every route of the OCI distribution specification, as everybody, in front of every backend, and finds
// that of a model in quarantine only who pushed it and operators can read anything.
func TestQuarantineByEveryRoute(t *testing.T) {
	for name, start := range map[string]func(*testing.T) string{
		"embedded":     func(*testing.T) string { return "" },
		"distribution": func(t *testing.T) string { return testregistry.Distribution(t, "") },
		"olareg":       testregistry.Olareg,
	} {
		t.Run(name, func(t *testing.T) {
			up := start(t)
			config := routesConfig(t, up)
			s := startServer(t, "--config", config)
			q := s.pushSecret()
			s.walkRoutes(q)
			s.checkUpstream(q, up)
			s.checkClients(q)
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			s = startServerIn(t, s.dir, "--config", config)
			s.walkRoutes(q)
		})
	}
}

// routeRow is a request and what its answer must be to each of the people; 0 is any status without content.
type routeRow struct {
	method, path string
	header       []string
	insider      int // alice and olga
	outsider     int // bob and carol
}

func (s *server) routeTable(q quarantined) []routeRow {
	const base = "/v2/models/secret"
	any := []string{"Accept", ocispec.MediaTypeImageManifest + ", " + ocispec.MediaTypeImageIndex}
	var rows []routeRow
	add := func(method, path string, header []string, insider, outsider int) {
		rows = append(rows, routeRow{method, path, header, insider, outsider})
	}
	for _, content := range q.contents() { // first: whom one of these made a holder would read what is asked for below
		add("POST", base+"/blobs/uploads/?digest="+sum(content), nil, 400, 400) // an upload in one request, of nothing
		add("POST", "/v2/models/other/blobs/uploads/?digest="+sum(content), nil, 400, 400)
		add("POST", "/v2/plain/other/blobs/uploads/?digest="+sum(content), nil, 0, 0)
	}
	fallback := "sha256-" + strings.TrimPrefix(sum(q.manifest), "sha256:")
	for _, tag := range []string{"v1", "all", fallback, fallback + ".sig", fallback + ".att"} {
		add("GET", base+"/manifests/"+tag, any, 404, 404)
		add("HEAD", base+"/manifests/"+tag, any, 404, 404)
	}
	for _, d := range []string{sum(q.manifest), sum(q.index), sum(q.signature)} { // the manifest is the index's child too
		add("GET", base+"/manifests/"+d, any, 200, 403)
		add("GET", base+"/manifests/"+d+"/", any, 200, 403)
		add("HEAD", base+"/manifests/"+d, any, 200, 404)
		add("GET", base+"/blobs/"+d, nil, 200, 403)
		add("GET", base+"/referrers/"+d, nil, 200, 200) // empty to outsiders
		add("GET", base+"/referrers/"+d+"?artifactType=application/example.signature", nil, 200, 200)
		add("DELETE", base+"/manifests/"+d, nil, 405, 405)
	}
	for _, d := range []string{sum(q.model), sum(q.readme), sum(q.config)} {
		add("GET", base+"/blobs/"+d, nil, 200, 403)
		add("GET", base+"/blobs/"+d, []string{"Range", "bytes=0-9"}, 206, 403)
		add("GET", base+"/blobs/"+d, []string{"If-None-Match", `"` + d + `"`}, 0, 403)
		add("HEAD", base+"/blobs/"+d, nil, 200, 404)
		add("GET", base+"/manifests/"+d, any, 0, 0)
		add("DELETE", base+"/blobs/"+d, nil, 405, 405)
		for _, other := range []string{"models/other", "plain/other"} {
			for _, from := range []string{"models/secret", "models%2Fsecret", "../quarantine/models/secret", "plain/../models/secret", ""} {
				add("POST", "/v2/"+other+"/blobs/uploads/?mount="+d+"&from="+from, nil, 0, 0)
			}
			add("GET", "/v2/"+other+"/blobs/"+d, nil, 404, 404)
			add("HEAD", "/v2/"+other+"/blobs/"+d, nil, 404, 404)
		}
	}
	add("GET", base+"/tags/list", nil, 0, 0)
	add("GET", base+"/tags/list?n=10", nil, 0, 0)
	add("GET", base+"/tags/list?n=10&last=a", nil, 0, 0)
	add("GET", "/v2/_catalog", nil, 0, 0)
	add("GET", "/v2/_catalog?n=1000", nil, 0, 0)
	add("DELETE", base+"/manifests/v1", nil, 405, 405)
	for _, crooked := range []string{
		"/v2/models%2Fsecret/manifests/" + sum(q.manifest), "/v2//models/secret/manifests/" + sum(q.manifest), "/v2/plain/../models/secret/blobs/" + sum(q.model),
		"/v2/plain/%2e%2e/models/secret/blobs/" + sum(q.model), "/v2/quarantine/models/secret/blobs/" + sum(q.model), "/v2/models/secret/blobs/./" + sum(q.model),
		"/v2/MODELS/secret/blobs/" + sum(q.model), "/v2/models/secret/blobs/" + strings.ToUpper(sum(q.model)), "/v2/models/secret/_by/x", "/v2/models/secret/index.json",
		"/registry/quarantine/models/secret/index.json", "/v2/models/secret/blobs/uploads/" + strings.TrimPrefix(sum(q.model), "sha256:"),
	} {
		add("GET", crooked, any, 0, 0)
	}
	return rows
}

func (s *server) walkRoutes(q quarantined) {
	s.Helper()
	for _, row := range s.routeTable(q) {
		for who, want := range map[string]int{alice: row.insider, olga: row.insider, bob: row.outsider, carol: row.outsider, eve: -1, "": -1} {
			if row.method == "POST" && who != alice && who != bob {
				continue // would be refused, or leave open uploads
			}
			status, header, text := s.call(who, row.method, row.path, nil, row.header...)
			at := fmt.Sprintf("%s %s as %q: %d", row.method, row.path, who, status)
			if row.method == "DELETE" && who == carol {
				want = http.StatusForbidden // for want of the role
			}
			if want > 0 && status != want {
				s.Errorf("%s, want %d: %.300s", at, want, text)
			}
			insider := (who == alice || who == olga) && want != 404
			if insider && strings.HasPrefix(row.path, "/v2/models/secret/referrers/"+sum(q.manifest)) { // it is hers to see, and nothing else
				if status != 200 || strings.Count(text, `"digest"`) != 1 || !strings.Contains(text, sum(q.signature)) {
					s.Errorf("%s: the signature is not listed: %s", at, text)
				}
				continue
			}
			if want == -1 && status < 300 && !strings.Contains(row.path, "_catalog") {
				s.Errorf("%s: %.300s", at, text)
			}
			if !insider || strings.Contains(row.path, "/referrers/") || strings.Contains(row.path, "/tags/") || strings.Contains(row.path, "_catalog") {
				s.reveals(q, at, header, text)
			}
			if status == http.StatusForbidden && (who == bob || who == carol) && row.method == "GET" && !strings.Contains(row.path, "/uploads/") {
				s.explains(at, text)
			}
		}
	}
}

// reveals fails the test where an answer has anything of what is in quarantine.
func (s *server) reveals(q quarantined, at string, header http.Header, text string) {
	s.Helper()
	for name, content := range q.contents() {
		piece := content
		if !bytes.HasPrefix(piece, []byte(`{"schemaVersion"`)) { // of what begins like nothing else, a part is too much
			piece = piece[:10]
		}
		if strings.Contains(text, string(piece)) {
			s.Errorf("%s: the answer has the %s", at, name)
		}
		if header.Get("Content-Length") == fmt.Sprint(len(content)) && header.Get("Docker-Content-Digest") != "" {
			s.Errorf("%s: the answer has the size of the %s", at, name)
		}
	}
	if strings.Contains(text, `"v1"`) || strings.Contains(text, `"models/secret"`) && strings.Contains(text, "repositories") {
		s.Errorf("%s: the answer lists it: %s", at, text)
	}
	if strings.Contains(at, "/referrers/") && strings.Contains(text, sum(q.signature)) {
		s.Errorf("%s: the answer lists the signature: %s", at, text)
	}
}

// explains fails the test where a refusal is no OCI error that names an admission and its state.
func (s *server) explains(at, text string) {
	s.Helper()
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(text), &body); err != nil || len(body.Errors) == 0 {
		s.Errorf("%s: %q is no OCI error", at, text)
		return
	}
	e := body.Errors[0]
	if e.Code != "DENIED" || !strings.Contains(e.Message, "admission ") || !strings.Contains(e.Message, "is in state held") {
		s.Errorf("%s: %+v does not name admission and state", at, e)
	}
}

// checkUpstream finds nothing of the model at the upstream, by URLs that a client may have kept.
func (s *server) checkUpstream(q quarantined, up string) {
	s.Helper()
	if up == "" {
		return
	}
	direct := *s
	direct.address = strings.TrimPrefix(up, "http://")
	for _, row := range s.routeTable(q) {
		if row.method != "GET" && row.method != "HEAD" {
			continue
		}
		status, header, text := direct.call("", row.method, row.path, nil, row.header...)
		at := fmt.Sprintf("%s %s at the upstream: %d", row.method, row.path, status)
		s.reveals(q, at, header, text)
	}
	for name, content := range q.contents() {
		if status, _, _ := direct.call("", "HEAD", "/v2/models/secret/blobs/"+sum(content), nil); status != http.StatusNotFound {
			s.Errorf("the upstream answers %d about the %s", status, name)
		}
	}
}

// checkClients lets real clients try: they print admission and state. A manifest that only names what another pushed is refused.
func (s *server) checkClients(q quarantined) {
	s.Helper()
	at := s.address + "/models/secret"
	id := s.admissionAs(alice, "models/secret").ID
	if id == "" {
		s.Fatal("the pusher does not see the admission")
	}
	for _, other := range []string{eve, carol, ""} {
		if a := s.admissionAs(other, "models/secret"); a.ID != "" {
			s.Errorf("%q sees admission %s", other, a.ID)
		}
	}
	login := crane.WithAuth(authn.FromConfig(authn.AuthConfig{Username: bob, Password: bob + bob}))
	for _, reference := range []string{at + ":v1", at + "@" + sum(q.manifest)} {
		_, err := crane.Pull(reference, crane.Insecure, login)
		if err == nil || !strings.Contains(err.Error(), "admission ") || !strings.Contains(err.Error(), "is in state held") {
			s.Errorf("crane pull %s: %v", reference, err)
		}
	}
	var warnings []string
	repo := repositoryOf(s.T, s.address, "models/secret", bob)
	repo.HandleWarning = func(w remote.Warning) { warnings = append(warnings, w.Text) }
	if _, err := oras.Copy(s.Context(), repo, "v1", memory.New(), "", oras.DefaultCopyOptions); err == nil {
		s.Error("oras pulls the tag")
	}
	if !slices.ContainsFunc(warnings, func(w string) bool {
		return strings.Contains(w, "admission ") && strings.Contains(w, "is in state held")
	}) {
		s.Errorf("oras shows the warnings %q", warnings)
	}
	_, _, err := repo.Manifests().FetchReference(s.Context(), sum(q.manifest))
	if err == nil || !strings.Contains(err.Error(), "is in state held") {
		s.Errorf("oras fetch by digest: %v", err)
	}
	// The pusher reads back what it pushed, with a client too.
	if _, err := oras.Copy(s.Context(), repositoryOf(s.T, s.address, "models/secret", alice), sum(q.manifest), memory.New(), "", oras.DefaultCopyOptions); err != nil {
		s.Errorf("the pusher's own pull: %v", err)
	}
	// To name a digest is not to have the content.
	for _, repository := range []string{"models/secret", "models/other"} {
		named := bytes.Replace(q.manifest, []byte(`"README.md"`), []byte(`"READ-IT.md"`), 1)
		if status, text := s.put(bob, repository, "mine", ocispec.MediaTypeImageManifest, named); status != http.StatusBadRequest || !strings.Contains(text, "MANIFEST_BLOB_UNKNOWN") {
			s.Errorf("a manifest of another's blobs in %s: %d %s", repository, status, text)
		}
	}
	index := bytes.Replace(q.index, []byte("{"), []byte(`{"annotations":{"by":"bob"},`), 1)
	if status, text := s.put(bob, "models/secret", "mine", ocispec.MediaTypeImageIndex, index); status != http.StatusBadRequest || !strings.Contains(text, "MANIFEST_BLOB_UNKNOWN") {
		s.Errorf("an index of another's manifest: %d %s", status, text)
	}
	// Who pushes the same bytes has them, and may read them back.
	if _, err := oras.Copy(s.Context(), repositoryOf(s.T, s.address, "models/secret", alice), sum(q.manifest), repositoryOf(s.T, s.address, "models/two", bob), "v1", oras.DefaultCopyOptions); err == nil {
		if status, _, _ := s.call(alice, "GET", "/v2/models/two/manifests/"+sum(q.manifest), nil); status != http.StatusForbidden {
			s.Errorf("alice reads what bob pushed: %d", status)
		}
		if status, _, _ := s.call(bob, "GET", "/v2/models/two/blobs/"+sum(q.model), nil); status != http.StatusOK {
			s.Errorf("bob does not read what he pushed: %d", status)
		}
	} else {
		s.Errorf("bob's own push: %v", err)
	}
}
