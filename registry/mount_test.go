package registry

import (
	"context"
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

// A mount is read as the registry behind the gateway reads it, or refused: who may not read a repository gets nothing from it, however he asks.
func TestAMountIsReadInOneWay(t *testing.T) {
	may := func(ctx context.Context, repository string, _ Action) bool {
		return Identity(ctx) == pusher || strings.HasPrefix(repository, Identity(ctx)+"/")
	}
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			testAMountIsReadInOneWay(t, serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: b.start(t)}, Authorize: may}))
		})
	}
}

func testAMountIsReadInOneWay(t *testing.T, s *server) {
	who := []string{"X-Test-Identity", "mallory"}
	d := s.putBlob("private/a", []byte("another's weights")).Digest.String()
	at := s.expect(http.StatusAccepted, "POST", "/v2/mallory/b/blobs/uploads/", nil, who...).header.Get("Location")
	own := digest.FromString("his own").String()
	s.expect(http.StatusCreated, "PUT", withQuery(at, "digest="+own), strings.NewReader("his own"), append(who, "Content-Type", "application/octet-stream")...)

	form := "mount=" + d + "&from=private%2Fa"
	multipart := ""
	for _, field := range [][2]string{{"mount", d}, {"from", "private/a"}} {
		multipart += "--x\r\nContent-Disposition: form-data; name=\"" + field[0] + "\"\r\n\r\n" + field[1] + "\r\n"
	}
	multipart += "--x--\r\n"
	const query = "/v2/mallory/a/blobs/uploads/?"
	for name, c := range map[string]struct {
		path, mediaType, body string
		status                int
		code                  string
	}{
		"a query":                 {query + form, "", "", 403, "DENIED"},
		"a form":                  {query, "application/x-www-form-urlencoded", form, 415, "UNSUPPORTED"},
		"a form and a query":      {query + "mount=" + own + "&from=mallory/b", "application/x-www-form-urlencoded", form, 415, "UNSUPPORTED"},
		"a form, oddly named":     {query, "Application/X-WWW-Form-URLencoded; a=1; a=2", form, 415, "UNSUPPORTED"},
		"a form in parts":         {query, "multipart/form-data; boundary=x", multipart, 415, "UNSUPPORTED"},
		"two repositories":        {query + "mount=" + d + "&from=mallory/b&from=private/a", "", "", 400, "UNSUPPORTED"},
		"none, and a repository":  {query + "mount=" + d + "&from=&from=private/a", "", "", 400, "UNSUPPORTED"},
		"two blobs":               {query + "mount=" + own + "&mount=" + d + "&from=mallory/b", "", "", 400, "UNSUPPORTED"},
		"an invalid repository":   {query + "mount=" + d + "&from=/private/a", "", "", 400, "NAME_INVALID"},
		"a crooked repository":    {query + "mount=" + d + "&from=mallory/../private/a", "", "", 400, "NAME_INVALID"},
		"a query with semicolons": {query + "mount=" + d + "&a=1;from=private/a", "", "", 400, "UNSUPPORTED"},
	} {
		r := s.do("POST", c.path, strings.NewReader(c.body), append(who, "Content-Type", c.mediaType)...)
		if r.status != c.status {
			t.Errorf("%s: %d, want %d: %s", name, r.status, c.status, r.body)
		} else if codes, _ := r.errors(t); codes[0] != c.code {
			t.Errorf("%s: %v, want %s", name, codes, c.code)
		}
		if r := s.do("GET", "/v2/mallory/a/blobs/"+d, nil, who...); r.status != http.StatusNotFound {
			t.Errorf("%s: then the blob is answered %d %q", name, r.status, r.body)
		}
	}
	if r := s.do("POST", query+"mount="+own+"&from=mallory/b", nil, who...); r.status != http.StatusCreated {
		t.Errorf("a mount from his own: %d %s", r.status, r.body)
	}
}

// TestAMountFromAnywhere: a registry behind may find a blob in a repository that nobody named, which the client may not be allowed to read.
func TestAMountFromAnywhere(t *testing.T) {
	var asked string
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RawQuery
		w.Header().Set("Location", r.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
	}))
	defer behind.Close()
	all := func(context.Context, string, Action) bool { return true }
	s := serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: behind.URL}, Authorize: all})
	s.expect(http.StatusAccepted, "POST", "/v2/plain/a/blobs/uploads/?mount="+digest.FromString("x").String()+"&other=1", nil)
	if asked != "other=1" {
		t.Errorf("the registry behind is asked %q", asked)
	}
}
