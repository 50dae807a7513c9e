package registry

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// budget is a context that ends after it was asked a number of times, and so stops work at a chosen step.
type budget struct {
	context.Context
	left atomic.Int64
}

func (b *budget) Err() error {
	if b.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A release that stops at any step, with a process that is killed there, shows nothing that it should not, and is completed
// by doing all steps again.
func TestReleaseSurvivesACrashAtEveryStep(t *testing.T) {
	path, sanitized := sanitize(t)
	base := "/v2/" + repo
	stops := 0
	for n := int64(0); ; n++ {
		s := serve(t, t.TempDir(), Limits{})
		f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
		source := f.layers[1].Digest
		steps := func(g *Gateway, ctx context.Context) error {
			p, err := g.Release(ctx, Release{Repository: repo, SourceDigest: f.digest.String(), Replace: map[string]string{source.String(): path}})
			if err != nil {
				return err
			}
			if err := g.Attach(ctx, repo, attestation(t, p.Descriptor)); err != nil {
				return err
			}
			return g.Tag(ctx, repo, "v1", p.Digest.String())
		}
		limited := &budget{Context: t.Context()}
		limited.left.Store(n)
		err := steps(s.g, limited)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("stop %d: %v", n, err)
		}

		// What a killed process leaves is what is on disk now.
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(s.dir)); err != nil {
			t.Fatal(err)
		}
		after := serve(t, copied, Limits{})
		complete := func(want int) {
			t.Helper()
			after.expect(http.StatusForbidden, "GET", base+"/blobs/"+source.String(), nil)
			after.expect(http.StatusForbidden, "GET", base+"/manifests/"+f.digest.String(), nil)
			r := after.do("GET", base+"/manifests/v1", nil)
			if r.status != want && want != 0 || r.status != http.StatusOK && r.status != http.StatusNotFound {
				t.Fatalf("stop %d: tag answers %d, want %d: %s", n, r.status, want, r.body)
			}
			if r.status == http.StatusNotFound {
				return
			}
			if !strings.Contains(r.body, digest.FromBytes(sanitized).String()) || strings.Contains(r.body, source.String()) {
				t.Errorf("stop %d: the tag is not that of the sanitized package: %s", n, r.body)
			}
			referrers := after.expect(http.StatusOK, "GET", base+"/referrers/"+r.header.Get("Docker-Content-Digest"), nil)
			if strings.Count(referrers.body, `"digest"`) != 1 {
				t.Errorf("stop %d: a visible tag needs one attestation: %s", n, referrers.body)
			}
			for _, l := range f.layers {
				if l.Digest != source {
					after.expect(http.StatusOK, "GET", base+"/blobs/"+l.Digest.String(), nil)
				}
			}
			after.expect(http.StatusOK, "GET", base+"/blobs/"+digest.FromBytes(sanitized).String(), nil)
		}
		complete(0)
		for range 2 {
			if err := steps(after.g, t.Context()); err != nil {
				t.Fatalf("stop %d: again: %v", n, err)
			}
			complete(http.StatusOK)
		}
		if err == nil {
			break
		}
		stops++
	}
	t.Logf("stopped at %d steps", stops)
	if stops < 10 {
		t.Errorf("stopped at %d steps only: the steps do not look at their context", stops)
	}
}

// What a crash leaves of unfinished writes is removed when the stores are opened.
func TestSweep(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	f, _ := s.pushPackage(repo, "v1", http.StatusCreated)
	s.expect(http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	dir := copied + "/quarantine/" + repo
	left := []string{dir + "/index.json.123", dir + "/blobs/sha256/" + temporary + "9"}
	for _, name := range left {
		if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left = append(left, dir+"/_uploads")
	if _, err := os.Stat(dir + "/_uploads"); err != nil {
		t.Fatal(err)
	}
	after := serve(t, copied, Limits{})
	for _, name := range left {
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
	if _, err := after.g.Fetch(t.Context(), repo, f.digest.String(), t.TempDir()); err != nil {
		t.Error(err)
	}
}
