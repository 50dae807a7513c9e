package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"

	"grindstone/internal/testregistry"
)

// pushReferrer pushes an artifact about a manifest that may not be there, and returns its digest.
func (s *server) pushReferrer(as []string, subject digest.Digest, artifactType, text string) string {
	s.Helper()
	upload := func(content []byte) ocispec.Descriptor {
		d := digest.FromBytes(content)
		s.expect(http.StatusCreated, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), bytes.NewReader(content), append([]string{"Content-Type", "application/octet-stream"}, as...)...)
		return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(content))}
	}
	config, layer := upload([]byte("{}")), upload([]byte(text))
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Config: titled(config, ocispec.MediaTypeEmptyJSON, ""),
		Layers: []ocispec.Descriptor{layer}, Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 1},
	})
	if err != nil {
		s.Fatal(err)
	}
	d := digest.FromBytes(raw).String()
	s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+d, bytes.NewReader(raw), append([]string{"Content-Type", ocispec.MediaTypeImageManifest}, as...)...)
	return d
}

// listed are the digests in a list of referrers.
func (s *server) listed(d digest.Digest, query string, as []string) []string {
	s.Helper()
	r := s.expect(http.StatusOK, "GET", "/v2/"+repo+"/referrers/"+d.String()+query, nil, as...)
	var index ocispec.Index
	if err := json.Unmarshal([]byte(r.body), &index); err != nil || r.header.Get("Content-Type") != ocispec.MediaTypeImageIndex || index.Manifests == nil {
		s.Fatalf("%s %s: %v", r.header.Get("Content-Type"), r.body, err)
	}
	all := []string{}
	for _, m := range index.Manifests {
		all = append(all, m.Digest.String())
	}
	slices.Sort(all)
	return all
}

// TestReferrersOfAHiddenManifest: what is attached to a package in quarantine is listed to who pushed both, and to operators, beside what the backend has;
// and to nobody else.
func TestReferrersOfAHiddenManifest(t *testing.T) {
	named := func(who string) []string { return []string{"X-Test-Identity", who} }
	operators := func(ctx context.Context, _ string, a Action) bool {
		return a != ActionOperate || Identity(ctx) == "olga"
	}
	compressing := backends[2]
	compressing.name, compressing.start = "olareg behind what compresses", func(t *testing.T) string { return compressed(t, testregistry.Olareg(t)) }
	for _, b := range append(slices.Clone(backends), compressing) {
		t.Run(b.name, func(t *testing.T) {
			s := serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: b.start(t)}, Authorize: operators})
			testReferrers(t, s, named, true)
		})
	}
	t.Run("logins of the upstream", func(t *testing.T) {
		var users string
		for _, who := range []string{pusher, "bob", "server"} {
			hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
			if err != nil {
				t.Fatal(err)
			}
			users += who + ":" + string(hash) + "\n"
		}
		file := filepath.Join(t.TempDir(), "htpasswd")
		if err := os.WriteFile(file, []byte(users), 0o600); err != nil {
			t.Fatal(err)
		}
		up := testregistry.Distribution(t, fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", file))
		s := serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: up, PassThrough: true, Username: "server", Password: "secret"}})
		testReferrers(t, s, func(who string) []string {
			return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(who+":secret"))}
		}, false)
	})
}

// compressed is a proxy that compresses what clients take compressed, and answers conditional requests that nothing has changed.
func compressed(t *testing.T, upstream string) string {
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/referrers/") || r.Header.Get("Accept-Encoding") != "gzip" {
			proxy.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.Header().Del("Content-Length")
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(answer.Code)
		z := gzip.NewWriter(w)
		_, _ = z.Write(answer.Body.Bytes())
		_ = z.Close()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// testReferrers is the test for one backend; named makes the headers of a request by somebody. Where the upstream knows the logins there is no operator, and nobody
// reads without one.
func testReferrers(t *testing.T, s *server, named func(string) []string, operator bool) {
	me, bob := named(pusher), named("bob")
	var config, layer ocispec.Descriptor
	for to, text := range map[*ocispec.Descriptor]string{&config: "{}", &layer: string(model("hidden"))} {
		*to = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString(text), Size: int64(len(text))}
		s.expect(http.StatusCreated, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+to.Digest.String(), bytes.NewReader([]byte(text)), append([]string{"Content-Type", to.MediaType}, me...)...)
	}
	raw, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{titled(layer, "application/onnx", "model.onnx")}})
	if err != nil {
		t.Fatal(err)
	}
	subject := digest.FromBytes(raw)
	s.expect(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/v1", bytes.NewReader(raw), append([]string{"Content-Type", ocispec.MediaTypeImageManifest}, me...)...)
	signature := s.pushReferrer(me, subject, "application/example.signature", "signed")
	sbom := s.pushReferrer(me, subject, "application/example.sbom", "listed")
	others := s.pushReferrer(bob, subject, "application/example.sbom", "of another")
	orphan := digest.FromString("a package that nobody has pushed")
	s.pushReferrer(me, orphan, "application/example.sbom", "too early")

	mine := []string{signature, sbom}
	slices.Sort(mine)
	all := []string{signature, sbom, others}
	slices.Sort(all)
	type row struct {
		who   string
		as    []string
		query string
		want  []string
	}
	rows := []row{
		{"the pusher", me, "", mine},
		{"the pusher, of a type", me, "?artifactType=application/example.signature", []string{signature}},
		{"the pusher, of another type", me, "?artifactType=application/example.other", []string{}},
		{"the pusher, who takes compressed answers", append([]string{"Accept-Encoding", "gzip", "If-None-Match", "*"}, me...), "", mine},
		{"who attached something", bob, "", []string{}},
	}
	if operator {
		rows = append(rows, row{"an operator", named("olga"), "", all}, row{"nobody", nil, "", []string{}}, row{"a stranger", named("eve"), "", []string{}},
			row{"an operator, of a type", named("olga"), "?artifactType=application/example.signature", []string{signature}})
	} else {
		s.expect(http.StatusUnauthorized, "GET", "/v2/"+repo+"/referrers/"+subject.String(), nil)
		s.expect(http.StatusUnauthorized, "GET", "/v2/"+repo+"/referrers/"+subject.String(), nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pusher+":wrong")))
	}
	for _, r := range rows {
		if got := s.listed(subject, r.query, r.as); !slices.Equal(got, r.want) {
			t.Errorf("%s is told of %q, want %q", r.who, got, r.want)
		}
	}
	if got := s.listed(orphan, "", me); len(got) != 0 {
		t.Errorf("of what is not there: %q", got)
	}
	if !operator {
		return
	}
	// What the backend has is listed besides, to all: the attestation of one that an operator approved.
	p, err := s.g.Release(t.Context(), Release{Repository: repo, SourceDigest: sbom})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []row{{"the pusher", me, "", mine}, {"a stranger", named("eve"), "", []string{p.Digest.String()}}, {"an operator", named("olga"), "", all}} {
		if got := s.listed(subject, r.query, r.as); p.Digest.String() != sbom || !slices.Equal(got, r.want) {
			t.Errorf("beside what is released %s is told of %q, want %q", r.who, got, r.want)
		}
	}
}
