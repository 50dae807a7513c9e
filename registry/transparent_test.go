package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/internal/testregistry"
)

// exchange is a request and what is remembered of its answer for the next ones.
type exchange struct {
	method, path string // "{name}" stands for what was remembered under the name
	body         string
	header       []string // name, value, …
	remember     string   // the answer's Location
}

// conversation is what clients of a plain registry do, from the first upload to the last delete.
func conversation(t *testing.T) []exchange {
	t.Helper()
	layer, config, small := strings.Repeat("0123456789abcdef", 4096), `{"a":1}`, "small"
	sum := func(s string) string { return digest.FromString(s).String() }
	descriptor := func(s, mediaType string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(s), Size: int64(len(s))}
	}
	encode := func(m ocispec.Manifest) string {
		m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	image := encode(ocispec.Manifest{
		Config: descriptor(config, "application/json"), Layers: []ocispec.Descriptor{descriptor(layer, "application/octet-stream")},
	})
	subject := descriptor(image, ocispec.MediaTypeImageManifest)
	signature := encode(ocispec.Manifest{
		ArtifactType: "application/example", Config: descriptor(config, "application/json"), Layers: []ocispec.Descriptor{}, Subject: &subject,
	})
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{subject},
	})
	if err != nil {
		t.Fatal(err)
	}
	oci := []string{"Content-Type", ocispec.MediaTypeImageManifest}
	accept := []string{"Accept", ocispec.MediaTypeImageManifest}
	half := len(layer) / 2
	return []exchange{
		{method: "GET", path: "/v2/"},
		{method: "GET", path: "/v2/public/a/tags/list"},
		{method: "HEAD", path: "/v2/public/a/manifests/v1", header: accept},
		{method: "GET", path: "/v2/public/a/blobs/" + sum(layer)},
		// An upload in two chunks that is asked about and gone on with.
		{method: "POST", path: "/v2/public/a/blobs/uploads/", remember: "up"},
		{method: "PATCH", path: "{up}", body: layer[:half], header: []string{"Content-Range", fmt.Sprintf("0-%d", half-1)}, remember: "up"},
		{method: "GET", path: "{up}", remember: "up"},
		{method: "PATCH", path: "{up}", body: "x", header: []string{"Content-Range", "7-7"}},
		{method: "PATCH", path: "{up}", body: layer[half:], header: []string{"Content-Range", fmt.Sprintf("%d-%d", half, len(layer)-1)}, remember: "up"},
		{method: "PUT", path: "{up}digest=" + sum(layer)},
		// One that is cancelled, one with a wrong digest.
		{method: "POST", path: "/v2/public/a/blobs/uploads/", remember: "up"},
		{method: "DELETE", path: "{up}"},
		{method: "POST", path: "/v2/public/a/blobs/uploads/", remember: "up"},
		{method: "PUT", path: "{up}digest=" + sum("other"), body: "this"},
		// Uploads as most clients do them.
		{method: "POST", path: "/v2/public/a/blobs/uploads/", remember: "up"},
		{method: "PUT", path: "{up}digest=" + sum(config), body: config},
		{method: "POST", path: "/v2/public/b/blobs/uploads/", remember: "up"},
		{method: "PUT", path: "{up}digest=" + sum(small), body: small},
		{method: "POST", path: "/v2/public/a/blobs/uploads/?mount=" + sum(small) + "&from=public/b"},
		{method: "HEAD", path: "/v2/public/a/blobs/" + sum(small)},
		{method: "HEAD", path: "/v2/public/a/blobs/" + sum(layer)},
		{method: "GET", path: "/v2/public/a/blobs/" + sum(layer)},
		{method: "GET", path: "/v2/public/a/blobs/" + sum(layer), header: []string{"Range", "bytes=10-19"}},
		{method: "GET", path: "/v2/public/a/blobs/" + sum(layer), header: []string{"Range", "bytes=9999999-"}},
		{method: "GET", path: "/v2/public/a/blobs/" + sum(layer), header: []string{"If-None-Match", `"` + sum(layer) + `"`}},
		// Manifests, tags in pages, referrers with the fallback tag.
		{method: "PUT", path: "/v2/public/a/manifests/broken", body: "{", header: oci},
		{method: "PUT", path: "/v2/public/a/manifests/v1", body: image, header: oci},
		{method: "PUT", path: "/v2/public/a/manifests/v2", body: image, header: oci},
		{method: "PUT", path: "/v2/public/a/manifests/v3", body: image, header: oci},
		{method: "PUT", path: "/v2/public/a/manifests/all", body: string(index), header: []string{"Content-Type", ocispec.MediaTypeImageIndex}},
		{method: "GET", path: "/v2/public/a/manifests/v1", header: accept},
		{method: "GET", path: "/v2/public/a/manifests/v1", header: []string{"Accept", "application/vnd.docker.distribution.manifest.v2+json"}},
		{method: "HEAD", path: "/v2/public/a/manifests/" + sum(image), header: accept},
		{method: "GET", path: "/v2/public/a/tags/list?n=2"},
		{method: "GET", path: "/v2/public/a/tags/list?n=2&last=v1"},
		{method: "GET", path: "/v2/_catalog?n=1"},
		{method: "PUT", path: "/v2/public/a/manifests/" + sum(signature), body: signature, header: oci},
		{method: "GET", path: "/v2/public/a/referrers/" + sum(image)},
		{method: "GET", path: "/v2/public/a/referrers/" + sum(image) + "?artifactType=application/example"},
		{method: "GET", path: "/v2/public/a/manifests/sha256-" + digest.FromString(image).Encoded(), header: accept},
		{method: "DELETE", path: "/v2/public/a/manifests/" + sum(signature)},
		{method: "DELETE", path: "/v2/public/a/manifests/v3"},
		{method: "DELETE", path: "/v2/public/a/manifests/" + sum(image)},
		{method: "GET", path: "/v2/public/a/manifests/v1", header: accept},
		{method: "DELETE", path: "/v2/public/b/blobs/" + sum(small)},
		{method: "GET", path: "/v2/public/b/blobs/" + sum(small)},
		{method: "OPTIONS", path: "/v2/public/a/tags/list"},
	}
}

// hold holds a conversation with a registry and returns its answers, without what differs from one run to the next.
func hold(t *testing.T, url string, talk []exchange) []string {
	t.Helper()
	var answers []string
	remembered := map[string]string{}
	for _, e := range talk {
		path := e.path
		for name, value := range remembered {
			if strings.HasPrefix(path, "{"+name+"}") {
				rest := strings.TrimPrefix(path, "{"+name+"}")
				if path = value; rest != "" {
					path = withQuery(value, rest)
				}
			}
		}
		r, err := http.NewRequestWithContext(t.Context(), e.method, url+path, io.MultiReader(strings.NewReader(e.body)))
		if err != nil {
			t.Fatal(err)
		}
		if r.ContentLength = int64(len(e.body)); r.ContentLength == 0 {
			r.Body = http.NoBody
		}
		for i := 0; i+1 < len(e.header); i += 2 {
			r.Header.Set(e.header[i], e.header[i+1])
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s %s: %v", e.method, path, err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatalf("%s %s: %v", e.method, path, err)
		}
		location := strings.TrimPrefix(answer.Header.Get("Location"), url)
		if e.remember != "" && location != "" {
			remembered[e.remember] = location
		}
		h := answer.Header
		h.Del("Date")
		for _, session := range []string{"Docker-Upload-Uuid"} {
			if h.Get(session) != "" {
				h.Set(session, "(a session)")
			}
		}
		if strings.Contains(location, "/blobs/uploads/") {
			location = location[:strings.Index(location, "uploads/")] + "(a session)"
		}
		if location != "" {
			h.Set("Location", location)
		}
		if link := h.Get("Link"); link != "" {
			h.Set("Link", strings.ReplaceAll(link, url, ""))
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "%s %s: %d %d\n", e.method, e.path, answer.StatusCode, answer.ContentLength)
		for _, name := range slices.Sorted(maps.Keys(h)) {
			fmt.Fprintf(&text, "%s: %q\n", name, h[name])
		}
		answers = append(answers, text.String()+string(body))
	}
	return answers
}

// A repository that is not intercepted is as if there were no gateway: every answer through it is what the registry answers
// directly, in status, headers, length and bytes.
func TestNotInterceptedIsTransparent(t *testing.T) {
	for _, b := range backends[1:] {
		for _, passThrough := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, credentials passed through: %v", b.name, passThrough), func(t *testing.T) {
				testTransparent(t, b.start(t), Upstream{URL: b.start(t), PassThrough: passThrough})
			})
		}
	}
	t.Run("distribution at a socket", func(t *testing.T) {
		testTransparent(t, testregistry.Distribution(t, ""), Upstream{URL: testregistry.DistributionSocket(t), PassThrough: true})
	})
}

// testTransparent holds the same conversation with a registry and with the gateway in front of another one that is empty too.
func testTransparent(t *testing.T, url string, u Upstream) {
	talk := conversation(t)
	direct := hold(t, url, talk)
	s := serveWith(t, Config{Dir: t.TempDir(), Upstream: u})
	through := hold(t, "http://"+s.host, talk)
	for i := range talk {
		if talk[i].path == "/v2/" && !u.PassThrough {
			continue // is the gateway's own
		}
		if direct[i] != through[i] {
			t.Errorf("directly\n%s\nthrough the gateway\n%s", direct[i], through[i])
		}
	}
}

// Challenges of the upstream reach the client as they are, and so do its credentials the upstream.
func TestChallengesPassThrough(t *testing.T) {
	up := testregistry.Distribution(t, "auth: {silly: {realm: \"http://login.example.com/token\", service: registry.example.com}}\n")
	s := serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: up, PassThrough: true}})
	for _, path := range []string{"/v2/", "/v2/public/a/tags/list", "/v2/_catalog?n=10", "/v2/models/resnet/tags/list", "/v2/models/resnet/manifests/v1"} {
		talk := []exchange{{method: "GET", path: path}}
		if direct, through := hold(t, up, talk), hold(t, "http://"+s.host, talk); direct[0] != through[0] || !strings.Contains(direct[0], ": 401 ") {
			t.Errorf("directly\n%s\nthrough the gateway\n%s", direct[0], through[0])
		}
	}
	// A push to an intercepted repository is refused in the upstream's words too.
	talk := []exchange{{method: "POST", path: "/v2/models/resnet/blobs/uploads/"}}
	if direct, through := hold(t, up, talk), hold(t, "http://"+s.host, talk); direct[0] != through[0] || !strings.Contains(direct[0], "Bearer realm=") {
		t.Errorf("directly\n%s\nthrough the gateway\n%s", direct[0], through[0])
	}
	s.expect(http.StatusUnauthorized, "PUT", "/v2/models/resnet/manifests/v1", strings.NewReader("{}"), "Content-Type", ocispec.MediaTypeImageManifest)
	s.expect(http.StatusAccepted, "POST", "/v2/models/resnet/blobs/uploads/", nil, "Authorization", "anything")
}
