package registry

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whoever knows the digest of what another pushed does not have it: an upload in one request is answered 201 to who sent the content, and nobody else
// may read it then or name it in a manifest.
func TestAnUploadIsOfWhatWasSent(t *testing.T) { eachBackend(t, testAnUploadIsOfWhatWasSent) }

func testAnUploadIsOfWhatWasSent(t *testing.T, s *server) {
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	mallory := []string{"X-Test-Identity", "mallory"}
	post := func(d digest.Digest, body []byte) response {
		return s.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), bytes.NewReader(body), mallory...)
	}
	of := map[string][]byte{"/manifests/": f.manifest, "/blobs/": f.model}
	for kind, content := range of {
		d := digest.FromBytes(content)
		for _, body := range [][]byte{nil, content[:len(content)-1], append([]byte("more"), content...)} {
			r := post(d, body)
			if codes, _ := r.errors(t); r.status != http.StatusBadRequest || codes[0] != "DIGEST_INVALID" {
				t.Errorf("%d bytes for %d: %d %v", len(body), len(content), r.status, codes)
			}
		}
		s.expect(http.StatusNotFound, "HEAD", "/v2/"+repo+"/blobs/"+d.String(), nil, mallory...)
		s.expect(http.StatusForbidden, "GET", "/v2/"+repo+kind+d.String(), nil, mallory...)
	}
	named := bytes.Replace(f.manifest, []byte("README.md"), []byte("READ-IT.md"), 1)
	r := s.expect(http.StatusBadRequest, "PUT", "/v2/"+repo+"/manifests/mine", bytes.NewReader(named), append(mallory, "Content-Type", ocispec.MediaTypeImageManifest)...)
	if codes, _ := r.errors(t); codes[0] != "MANIFEST_BLOB_UNKNOWN" {
		t.Errorf("a manifest of another's blobs: %v", codes)
	}
	for kind, content := range of {
		d := digest.FromBytes(content)
		r := post(d, content)
		if r.status != http.StatusCreated || r.header.Get("Location") != "/v2/"+repo+"/blobs/"+d.String() || r.header.Get("Docker-Content-Digest") != d.String() {
			t.Errorf("who has the content: %d %v", r.status, r.header)
		}
		if r := s.expect(http.StatusOK, "GET", "/v2/"+repo+kind+d.String(), nil, mallory...); r.body != string(content) {
			t.Errorf("%s%s is %q", kind, d, r.body)
		}
	}
}

// begun returns the number of unfinished uploads of a repository on disk, and that of those in the table.
func (s *server) begun(repository string) (files, open int) {
	s.Helper()
	of := s.g.quarantine
	if !s.config.Intercept(repository) {
		of = s.g.embedded
	}
	entries, err := os.ReadDir(filepath.Join(of.dir(repository), uploadsFolder))
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	s.g.uploads.mu.Lock()
	defer s.g.uploads.mu.Unlock()
	return len(entries), len(s.g.uploads.open)
}

// awaitBegun waits until a repository has so many unfinished uploads.
func (s *server) awaitBegun(repository string, want int) {
	s.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		files, open := s.begun(repository)
		if files == want && open == want {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("%s has %d unfinished uploads on disk, and %d in the table, want %d", repository, files, open, want)
		}
	}
}

// An upload in one request that comes to nothing leaves no file and no place taken, however it ends; while it comes it is counted as any other.
func TestAnUploadInOneRequestLeavesNothing(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{BlobBytes: 1000, UploadsEach: 1})
	content := bytes.Repeat([]byte("x"), 900)
	d := digest.FromBytes(content).String()
	for _, repository := range []string{repo, "public/a"} {
		path := "/v2/" + repository + "/blobs/uploads/?digest="
		who := []string{"X-Test-Identity", pusher}
		for name, c := range map[string]struct {
			digest string
			body   io.Reader
			status int
		}{
			"another digest":        {d, strings.NewReader("y"), http.StatusBadRequest},
			"no digest":             {"sha256:x", bytes.NewReader(content), http.StatusBadRequest},
			"too large":             {d, bytes.NewReader(make([]byte, 1001)), http.StatusRequestEntityTooLarge},
			"too large, as it came": {d, io.MultiReader(bytes.NewReader(make([]byte, 1001))), http.StatusRequestEntityTooLarge},
		} {
			if r := s.do("POST", path+c.digest, c.body, who...); r.status != c.status {
				t.Errorf("%s, %s: %d %s", repository, name, r.status, r.body)
			}
			if files, open := s.begun(repository); files+open > 0 {
				t.Errorf("%s, %s: %d files and %d uploads are left", repository, name, files, open)
			}
		}
		// A connection that breaks.
		conn, err := net.Dial("tcp", s.host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s%s HTTP/1.1\r\nHost: %s\r\nX-Test-Identity: %s\r\nContent-Length: 900\r\n\r\n%s", path, d, s.host, pusher, content[:100])
		s.awaitBegun(repository, 1)
		s.expect(http.StatusTooManyRequests, "POST", path+d, bytes.NewReader(content), who...)
		s.expect(http.StatusAccepted, "POST", "/v2/"+repository+"/blobs/uploads/", nil, "X-Test-Identity", "another")
		s.awaitBegun(repository, 2)
		conn.Close()
		s.awaitBegun(repository, 1)
		s.expect(http.StatusCreated, "POST", path+d, bytes.NewReader(content), who...)
		s.awaitBegun(repository, 1)
		for session := range s.g.uploads.open {
			s.g.endUpload(t.Context(), session)
		}
	}
}

// An upload whose last request is refused is over: it keeps no place, and what is asked of it is answered 404, as for one that never was.
func TestARefusedUploadIsOver(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{BlobBytes: 1000, UploadsEach: 1})
	who := []string{"X-Test-Identity", pusher}
	for _, repository := range []string{repo, "public/a"} {
		begin := func() string {
			return s.expect(http.StatusAccepted, "POST", "/v2/"+repository+"/blobs/uploads/", nil, who...).header.Get("Location")
		}
		over := func(how, at string) {
			t.Helper()
			for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
				r := s.do(method, withQuery(at, "digest="+digest.FromString("x").String()), strings.NewReader("x"), who...)
				if codes, _ := r.errors(t); r.status != http.StatusNotFound || codes[0] != "BLOB_UPLOAD_UNKNOWN" {
					t.Errorf("%s, %s: %s: %d %v", repository, how, method, r.status, codes)
				}
			}
			if files, open := s.begun(repository); files+open > 0 {
				t.Errorf("%s, %s: %d files and %d uploads are left", repository, how, files, open)
			}
		}
		for how, c := range map[string]struct {
			query  string
			body   io.Reader
			status int
			code   string
		}{
			"another digest":        {"{state}&digest=" + digest.FromString("y").String(), strings.NewReader("x"), 400, "DIGEST_INVALID"},
			"no digest":             {"{state}", strings.NewReader("x"), 400, "DIGEST_INVALID"},
			"a malformed digest":    {"{state}&digest=sha256:x", strings.NewReader("x"), 400, "DIGEST_INVALID"},
			"no state":              {"digest=" + digest.FromString("x").String(), strings.NewReader("x"), 400, "BLOB_UPLOAD_INVALID"},
			"too large, as it came": {"{state}&digest=" + digest.FromString("x").String(), io.MultiReader(bytes.NewReader(make([]byte, 1001))), 413, "SIZE_INVALID"},
		} {
			at := begin()
			path, state, _ := strings.Cut(at, "?")
			r := s.do("PUT", path+"?"+strings.Replace(c.query, "{state}", state, 1), c.body, who...)
			if codes, _ := r.errors(t); r.status != c.status || codes[0] != c.code {
				t.Errorf("%s, %s: %d %v", repository, how, r.status, codes)
			}
			over(how, at)
		}
		for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} { // one that the store has given up by itself
			at := begin()
			for session, u := range s.g.uploads.open {
				s.g.cancelUpload(t.Context(), session, u)
			}
			s.expect(http.StatusNotFound, method, withQuery(at, "digest="+digest.FromString("x").String()), strings.NewReader("x"), who...)
			over("given up, "+method, at)
		}
		// What may be repeated is not over.
		at := begin()
		s.expect(http.StatusRequestedRangeNotSatisfiable, "PUT", withQuery(at, "digest="+digest.FromString("x").String()), strings.NewReader("x"), append(who, "Content-Range", "7-7")...)
		s.expect(http.StatusBadRequest, "PATCH", strings.Split(at, "?")[0], strings.NewReader("x"), who...)
		s.expect(http.StatusCreated, "PUT", withQuery(at, "digest="+digest.FromString("x").String()), strings.NewReader("x"), who...)
	}
}
