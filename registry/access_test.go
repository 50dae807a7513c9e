package registry

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestAccess asks for everything as who may push to some repositories, who may pull from them, and nobody: a refusal says how to log in or who may not do
// what, a mount needs the right to pull from where it comes, and the catalog has what may be pulled.
func TestAccess(t *testing.T) {
	may := func(ctx context.Context, repository string, a Action) bool {
		team := strings.HasPrefix(repository, "models/team") || strings.HasPrefix(repository, "public/team")
		switch Identity(ctx) {
		case pusher:
			return a != ActionOperate
		case "alice":
			return team && a != ActionOperate
		case "bob":
			return team && a == ActionPull
		case "carol":
			return strings.HasPrefix(repository, "public/other") && a != ActionOperate
		}
		return false
	}
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			testAccess(t, serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: b.start(t)}, Authorize: may, Challenge: `Basic realm="here"`}))
		})
	}
}

func testAccess(t *testing.T, s *server) {
	d := map[string]string{}
	for _, repository := range []string{"public/team", "public/other"} {
		blob := s.putBlob(repository, []byte("of "+repository))
		d[repository] = blob.Digest.String()
		raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": blob, "layers": []any{}})
		if err != nil {
			t.Fatal(err)
		}
		s.expect(http.StatusCreated, "PUT", "/v2/"+repository+"/manifests/v1", strings.NewReader(string(raw)),
			"Content-Type", "application/vnd.oci.image.manifest.v1+json", "X-Test-Identity", pusher)
	}
	mount := func(to, from string) string {
		return "/v2/" + to + "/blobs/uploads/?mount=" + d[from] + "&from=" + from
	}
	for _, c := range []struct {
		method, path                string
		alice, bob, carol, stranger int
	}{
		{"GET", "/v2/public/team/manifests/v1", 200, 200, 403, 401},
		{"GET", "/v2/public/team/tags/list", 200, 200, 403, 401},
		{"GET", "/v2/public/team/blobs/" + d["public/team"], 200, 200, 403, 401},
		{"GET", "/v2/models/team/referrers/" + d["public/team"], 200, 200, 403, 401},
		{"GET", "/v2/models/team/manifests/v1", 404, 404, 403, 401},
		{"POST", "/v2/public/team/blobs/uploads/", 202, 403, 403, 401},
		{"POST", "/v2/models/team/blobs/uploads/", 202, 403, 403, 401},
		{"GET", "/v2/models/team/blobs/uploads/x", 404, 403, 403, 401},
		{"PUT", "/v2/models/team/manifests/v1", 400, 403, 403, 401},
		{"DELETE", "/v2/models/team/manifests/v1", 405, 403, 403, 401},
		{"DELETE", "/v2/public/other/manifests/v1", 403, 403, 0, 401},
		{"POST", mount("public/team", "public/team"), 0, 403, 403, 401},
		{"POST", mount("public/team", "public/other"), 403, 403, 403, 401},
		{"POST", mount("models/team", "public/other"), 403, 403, 403, 401},
		{"POST", mount("public/other", "public/team"), 403, 403, 403, 401},
	} {
		for who, want := range map[string]int{"alice": c.alice, "bob": c.bob, "carol": c.carol, "": c.stranger} {
			if want == 0 { // is the backend's to say
				continue
			}
			r := s.do(c.method, c.path, nil, "X-Test-Identity", who)
			if r.status != want {
				t.Errorf("%s %s as %q: %d, want %d: %s", c.method, c.path, who, r.status, want, r.body)
				continue
			}
			if challenge := r.header.Get("Www-Authenticate"); (challenge == `Basic realm="here"`) != (want == 401) {
				t.Errorf("%s %s as %q: the challenge is %q", c.method, c.path, who, challenge)
			}
			if want == 401 || want == 403 {
				codes, messages := r.errors(t)
				if code := map[int]string{401: "UNAUTHORIZED", 403: "DENIED"}[want]; codes[0] != code || want == 403 && !strings.Contains(messages, who+" may not ") {
					t.Errorf("%s %s as %q: %v %s", c.method, c.path, who, codes, messages)
				}
			}
		}
	}
	for who, want := range map[string][]string{"alice": {"public/team"}, "bob": {"public/team"}, "carol": {"public/other"}, "": {}} {
		r := s.do("GET", "/v2/_catalog", nil, "X-Test-Identity", who)
		var list struct{ Repositories []string }
		if r.status == http.StatusNotFound { // the backend has none
			break
		}
		if err := json.Unmarshal([]byte(r.body), &list); err != nil || !slices.Equal(list.Repositories, want) {
			t.Errorf("the catalog of %q is %d %s", who, r.status, r.body)
		}
	}
}
