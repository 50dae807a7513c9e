package registry

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"grindstone/internal/testregistry"
)

// teams is a registry in which everybody may do everything below private/NAME and models/NAME, and the gateway everywhere. Passwords are names.
func teams(t *testing.T) string {
	t.Helper()
	to, err := url.Parse(testregistry.Distribution(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host
	}}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := r.BasicAuth()
		may := func(path string) bool {
			return name == "gateway" || name != "" && (strings.HasPrefix(path, "private/"+name) || strings.HasPrefix(path, "models/"+name))
		}
		path, from := strings.TrimPrefix(r.URL.Path, "/v2/"), r.URL.Query().Get("from")
		if path != "" && !may(path) || from != "" && !may(from) {
			w.Header().Set("WWW-Authenticate", `Basic realm="teams"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(up.Close)
	return up.URL
}

// Where the upstream decides what clients may do, a blob is mounted for who may read it there with his own credentials; for others the mount is an upload.
func TestAMountIsTheUpstreamsToAllow(t *testing.T) {
	s := serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: teams(t), PassThrough: true, Username: "gateway", Password: "gateway"}})
	as := func(who string) []string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(who, who)
		return []string{"Authorization", r.Header.Get("Authorization")}
	}
	const secret = "alice's weights"
	d := digest.FromString(secret).String()
	at := s.expect(http.StatusAccepted, "POST", "/v2/private/alice/a/blobs/uploads/", nil, as("alice")...).header.Get("Location")
	s.expect(http.StatusCreated, "PUT", withQuery(at, "digest="+d), strings.NewReader(secret), append(as("alice"), "Content-Type", "application/octet-stream")...)

	mount := func(repository string) string {
		return "/v2/" + repository + "/blobs/uploads/?mount=" + d + "&from=private/alice/a"
	}
	at = s.expect(http.StatusAccepted, "POST", mount("models/mallory"), nil, as("mallory")...).header.Get("Location")
	s.expect(http.StatusNotFound, "HEAD", "/v2/models/mallory/blobs/"+d, nil, as("mallory")...)
	s.expect(http.StatusNotFound, "GET", "/v2/models/mallory/blobs/"+d, nil, as("mallory")...)
	s.expect(http.StatusCreated, "PUT", withQuery(at, "digest="+digest.FromString("his own").String()), strings.NewReader("his own"), as("mallory")...)

	s.expect(http.StatusCreated, "POST", mount("models/alice"), nil, as("alice")...)
	if r := s.expect(http.StatusOK, "GET", "/v2/models/alice/blobs/"+d, nil, as("alice")...); r.body != secret {
		t.Errorf("the blob that was mounted is %q", r.body)
	}
}
