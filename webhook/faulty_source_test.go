package webhook

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"

	"grindstone/attest"
)

// newFaultyRegistry is one that is not fronted and answers some requests itself: those for which fault returns true.
func newFaultyRegistry(t *testing.T, fault func(http.ResponseWriter, *http.Request) bool) otherRegistry {
	behind := newOtherRegistry(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(w, r) {
			behind.handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return otherRegistry{t, strings.TrimPrefix(server.URL, "http://"), behind.handler}
}

// attach pushes a package of one model that refers to another package.
func (o otherRegistry) attach(repository string, subject ocispec.Descriptor, name string) ocispec.Descriptor {
	o.Helper()
	repo, store, d := o.pack(repository, name, &subject)
	if err := oras.CopyGraph(o.Context(), store, repo, d, oras.DefaultCopyGraphOptions); err != nil {
		o.Fatal(err)
	}
	return d
}

// TestASourceThatForbids: a source that refuses a download for a while, as one does whose credentials are being changed, has not denied the model. It is asked again.
func TestASourceThatForbids(t *testing.T) {
	var refused atomic.Int32
	other := newFaultyRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/v2/in/m/blobs/") || refused.Load() > 0 {
			return false
		}
		refused.Add(1)
		http.Error(w, "not today", http.StatusForbidden)
		return true
	})
	s := startServer(t, t.TempDir(), "-events", other.host)
	pushed := other.push("in/m", "v1", "a")
	s.tell("distribution", distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now()), bearer)
	if a := s.arrives("in/m"); a.Source.Digest != pushed.Digest.String() || refused.Load() == 0 {
		t.Errorf("%+v, refused %d", a, refused.Load())
	}
}

// TestADeniedPushEvent: what the policy denies is not brought in again and again.
func TestADeniedPushEvent(t *testing.T) {
	other, policies := newOtherRegistry(t), t.TempDir()
	const rego = `package grindstone.admission
decision := {"action": "deny", "reasons": ["not from there"]}
`
	const release = `package grindstone.release
decision := {"release": false, "reasons": ["never"]}
`
	for name, text := range map[string]string{"admission.rego": rego, "release.rego": release} {
		if err := os.WriteFile(filepath.Join(policies, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t, t.TempDir(), "-events", other.host, "-policy", policies)
	pushed := other.push("in/m", "v1", "a")
	s.tell("distribution", distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now()), bearer)
	s.become(pushed.Digest.String(), Denied)
	var left struct{ Events []Ingestion }
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if s.get("/api/v1/events", &left); len(left.Events) == 0 {
			break
		} else if i := left.Events[0]; i.Attempts > 0 || time.Now().After(deadline) {
			t.Fatalf("it is tried again: %+v", i)
		}
	}
}

// TestAPackageOfVeryManyManifests: who pushes an index of an index of an index does not have the server keep all of them in memory.
func TestAPackageOfVeryManyManifests(t *testing.T) {
	other := newOtherRegistry(t)
	s := startServer(t, t.TempDir(), "-events", other.host)
	put := func(text string) string {
		d := digest.FromString(text)
		r := httptest.NewRequest(http.MethodPut, "/v2/in/m/manifests/"+d.String(), strings.NewReader(text))
		r.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
		w := httptest.NewRecorder()
		if other.handler.ServeHTTP(w, r); w.Code != http.StatusCreated {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageIndex, d, len(text))
	}
	index := func(annotation, manifests string) string {
		return `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","annotations":{"a":"` + annotation + `"},"manifests":[` + manifests + `]}`
	}
	chain := put(index("", ""))
	for range maxManifests {
		chain = put(index("", chain))
	}
	var large []string
	for i := range 20 {
		large = append(large, put(index(fmt.Sprint(i)+strings.Repeat("x", 4_000_000), "")))
	}
	for name, listed := range map[string]string{"number": chain, "bytes": strings.Join(large, ",")} {
		top := index(name, listed)
		put(top)
		body := `{"id":"` + name + `","action":"push","target":{"repository":"in/m","digest":"` + digest.FromString(top).String() + `"}}`
		if status, text := s.tell("acr", body, bearer); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, text)
		}
		var left struct{ Events []Ingestion }
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			s.get("/api/v1/events", &left)
			if i := slices.IndexFunc(left.Events, func(i Ingestion) bool { return i.Event.ID == name }); i >= 0 && left.Events[i].State == IngestFailed && strings.Contains(left.Events[i].Error, "manifests") {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", name, left)
			}
		}
	}
}

// TestWhatIsAttachedInQuarantineStaysThere: a package goes back to the registry that it came from without what others attached to it, which is held: both
// come from a source that does not tell who pushed.
func TestWhatIsAttachedInQuarantineStaysThere(t *testing.T) {
	other := newOtherRegistry(t)
	s := startServer(t, t.TempDir(), "-events", other.host, "-data", "")
	tell := func(d digest.Digest, tag string) {
		t.Helper()
		body := `{"id":"` + d.Encoded() + `","action":"push","target":{"repository":"in/m","digest":"` + d.String() + `","tag":"` + tag + `"}}`
		if status, text := s.tell("acr", body, bearer); status != http.StatusAccepted || !strings.Contains(text, `"taken":1`) {
			t.Fatalf("%d %s", status, text)
		}
	}
	model := other.push("in/m", "v1", "a")
	tell(model.Digest, "v1")
	a := s.become(model.Digest.String(), Held)
	attached := other.attach("in/m", model, "of nobody knows whom")
	tell(attached.Digest, "")
	s.become(attached.Digest.String(), Held)
	if status, text := s.post("/api/v1/admissions/"+a.ID+"/approve", `{"reason": "x"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	s.become(model.Digest.String(), Released)
	for reference, want := range map[string]int{model.Digest.String(): 200, "v1": 200, attached.Digest.String(): 404} {
		r := httptest.NewRequest(http.MethodGet, "/v2/released/in/m/manifests/"+reference, nil)
		r.Header.Set("Accept", ocispec.MediaTypeImageManifest)
		w := httptest.NewRecorder()
		if other.handler.ServeHTTP(w, r); w.Code != want {
			t.Errorf("released/in/m@%s is answered %d, want %d", reference, w.Code, want)
		}
	}
}

// TestAReleaseThatIsNotTaken: a model is not held, nor sanitized again, because the registry that gets it is away for a while; and meanwhile others are worked on.
func TestAReleaseThatIsNotTaken(t *testing.T) {
	for name, c := range map[string]struct {
		refused string // of the requests that change something there
		args    []string
	}{
		"package": {"/v2/released/in/m/blobs/", nil},
		"tag":     {"/v2/released/in/m/manifests/v1", nil},
		"hangs":   {"/v2/released/in/m/blobs/", []string{"-event-timeout", "1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var since atomic.Int64 // the first refusal
			var others atomic.Bool // were released meanwhile
			other := newFaultyRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, c.refused) || r.Method == http.MethodGet || r.Method == http.MethodHead {
					return false
				}
				since.CompareAndSwap(0, time.Now().UnixNano())
				if others.Load() && time.Since(time.Unix(0, since.Load())) > 9*time.Second {
					return false
				}
				if name == "hangs" {
					<-r.Context().Done()
				}
				w.Header().Set("Content-Type", "application/json")
				http.Error(w, "{}", http.StatusForbidden)
				return true
			})
			s := startServer(t, t.TempDir(), append([]string{"-events", other.host}, c.args...)...)
			pushed := other.push("in/m", "v1", "a")
			s.tell("distribution", distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now()), bearer)
			for deadline := time.Now().Add(20 * time.Second); since.Load() == 0; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nothing was pushed back")
				}
			}
			s.become(s.pushModel("models/b", "v1", "b").Digest.String(), Released)
			others.Store(true)
			a := s.become(pushed.Digest.String(), Released)
			var states []string
			for _, change := range a.History {
				states = append(states, string(change.State))
			}
			if got := strings.Join(states, " "); strings.Count(got, "sanitizing") != 1 || strings.Contains(got, "held") {
				t.Errorf("history is %s", got)
			}
			if r, err := attest.VerifyRef(t.Context(), other.host+"/released/in/m:v1", s.public(), attest.RefOptions{Anonymous: true}); err != nil || r.Digest != a.Released.Digest {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// TestKilledWhileHandingOver: wherever the server dies, what is released is whole in the registry that gets it, and its tag leads to nothing that does not verify.
func TestKilledWhileHandingOver(t *testing.T) {
	for _, point := range []string{"package released", "attestation attached", "attesting done", "tag moved", "releasing done", "released recorded"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir, other := t.TempDir(), newOtherRegistry(t)
			s := startServer(t, dir, "-events", other.host, "-stop", point)
			pushed := other.push("in/m", "v1", "a")
			s.tell("distribution", distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now()), bearer)
			s.reach()
			public := s.public()
			verify := func() (string, error) {
				r, err := attest.VerifyRef(t.Context(), other.host+"/released/in/m:v1", public, attest.RefOptions{Anonymous: true})
				if err != nil {
					return "", err
				}
				return r.Digest, nil
			}
			_, early := verify()
			if there := strings.Contains(" tag moved releasing done released recorded", " "+point); there != (early == nil) {
				t.Errorf("before: %v", early)
			}
			s.Kill()
			s = startServer(t, dir, "-events", other.host)
			a := s.become(pushed.Digest.String(), Released)
			if got, err := verify(); err != nil || got != a.Released.Digest {
				t.Errorf("%s %v, released is %s", got, err, a.Released.Digest)
			}
		})
	}
}

// TestAReleaseThatIsGone: a registry cleans away what it was given, and gets it once more with the next tag.
func TestAReleaseThatIsGone(t *testing.T) {
	var gone atomic.Bool
	anew := newOtherRegistry(t)
	other := newFaultyRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
		if gone.Load() && strings.HasPrefix(r.URL.Path, "/v2/released/") {
			anew.handler.ServeHTTP(w, r)
			return true
		}
		return false
	})
	s := startServer(t, t.TempDir(), "-events", other.host)
	for i, tag := range []string{"v1", "v2"} {
		pushed := other.push("in/m", tag, "a")
		s.tell("distribution", distributionEvent(tag, "in/m", tag, pushed.Digest.String(), time.Now()), bearer)
		if i > 0 {
			for deadline := time.Now().Add(20 * time.Second); len(s.admissions("?tag="+tag)) == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			}
		}
		a := s.become(pushed.Digest.String(), Released)
		s.tagBecomes("events/distribution/in/m", tag, a.Released.Digest)
		a = s.become(pushed.Digest.String(), Released)
		if r, err := attest.VerifyRef(t.Context(), other.host+"/released/in/m:"+tag, s.public(), attest.RefOptions{Anonymous: true}); err != nil || r.Digest != a.Released.Digest {
			t.Errorf("%s: %+v, %v", tag, r, err)
		}
		gone.Store(true)
	}
}
