package webhook

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"

	"grindstone/attest"
)

func digestOf(s string) digest.Digest { return digest.Digest(s) }

// public is the key that the server answers.
func (s *serverProcess) public() crypto.PublicKey {
	s.Helper()
	var pem string
	if status := s.get("/api/v1/key", &pem); status != http.StatusOK {
		s.Fatalf("key: %d", status)
	}
	public, err := attest.ParsePublicKey([]byte(pem))
	if err != nil {
		s.Fatal(err)
	}
	return public
}

func TestPushedModelIsSanitizedSignedAndReleased(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "slow-1s")
	pushed := s.pushModel("models/a", "v1", "a")
	if _, _, err := s.pull("models/a", "v1"); err == nil {
		t.Error("the tag answers while the model is in quarantine")
	}
	if _, _, err := s.pull("models/a", pushed.Digest.String()); err == nil {
		t.Error("the digest answers while the model is in quarantine")
	}
	list := s.settle()
	if len(list) != 1 || list[0].Source.Digest != pushed.Digest.String() {
		t.Fatalf("%+v", list)
	}
	s.checkReleased("models/a", "v1", "a", list[0])
	var states []string
	for _, c := range list[0].History {
		states = append(states, string(c.State))
	}
	if got := strings.Join(states, " "); got != "quarantined deciding sanitizing evaluating attesting releasing released" {
		t.Errorf("history is %s", got)
	}

	// The same model under a second tag, and again under the first, joins the admission: nothing is sanitized twice.
	s.pushModel("models/a", "v2", "a")
	list = s.settle()
	s.checkReleased("models/a", "v2", "a", list[0])
	s.pushModel("models/a", "v1", "a")
	list = s.settle()
	s.checkReleased("models/a", "v1", "a", list[0])
	if len(list) != 1 {
		t.Errorf("%d admissions of one model", len(list))
	}
	sanitized := 0
	for _, c := range list[0].History {
		if c.State == Sanitizing {
			sanitized++
		}
	}
	if sanitized != 1 {
		t.Errorf("sanitized %d times", sanitized)
	}
}

// TestKilledAnywhereGoesOn kills the real server process with kill -9 at every point, starts it again and sees the model released.
func TestKilledAnywhereGoesOn(t *testing.T) {
	for _, point := range []string{
		"quarantined recorded", "quarantined done",
		"deciding recorded", "deciding done",
		"sanitizing recorded", "sanitizing done",
		"evaluating recorded", "evaluating done",
		"attesting recorded", "package released", "attestation signed", "attestation attached", "attesting done",
		"releasing recorded", "tag moved", "releasing done",
		"released recorded",
	} {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			s := startServer(t, dir, "-stop", point)
			pushed := make(chan error, 1)
			go func() {
				_, err := s.push("models/a", "v1", map[string][]byte{"model.onnx": testModel("a")})
				pushed <- err
			}()
			s.reach()
			if digest, _, err := s.pull("models/a", "v1"); err == nil && !pastTag(point) {
				t.Errorf("the tag answers %s before everything is there", digest)
			}
			unacknowledged := point == "quarantined recorded"
			if !unacknowledged { // the work begins beside the answer, so the answer may still be on its way
				if err := <-pushed; err != nil {
					t.Errorf("the push was not acknowledged: %v", err)
				}
			}
			s.Kill()
			if unacknowledged {
				if err := <-pushed; err == nil {
					t.Error("the push was acknowledged before the server was ready to")
				}
			}

			s = startServer(t, dir)
			if unacknowledged {
				s.pushModel("models/a", "v1", "a") // as the client would
			}
			list := s.settle()
			if len(list) != 1 {
				t.Errorf("%d admissions of one push", len(list))
			}
			s.checkReleased("models/a", "v1", "a", list[0])
		})
	}
}

func pastTag(point string) bool {
	return point == "tag moved" || point == "releasing done" || point == "released recorded"
}

// TestKilledWhileSanitizing kills the server in the middle of a run: the sanitizer dies with it, and the run is done again.
func TestKilledWhileSanitizing(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "hang")
	s.pushModel("models/a", "v1", "a")
	pid := s.sanitizerPID()
	s.Kill()
	for deadline := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the sanitizer %d outlives its server", pid)
		}
	}
	s = startServer(t, dir)
	list := s.settle()
	s.checkReleased("models/a", "v1", "a", list[0])
}

// TestGracefulShutdown stops the server in the middle of a run: interruption is not failure and does not count as an attempt.
func TestGracefulShutdown(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "hang")
	s.pushModel("models/a", "v1", "a")
	pid := s.sanitizerPID()
	if err := s.Stop(); err != nil {
		t.Fatalf("the server did not end well: %v", err)
	}
	if alive(pid) {
		t.Errorf("the sanitizer %d outlives its server", pid)
	}
	store, _, err := OpenStore(filepath.Join(dir, "state", "admissions"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range store.List(func(*Admission) bool { return true }) {
		if a.State != Sanitizing || a.Attempts != 0 {
			t.Errorf("after the stop it is %s with %d attempts", a.State, a.Attempts)
		}
	}
	s = startServer(t, dir)
	list := s.settle()
	s.checkReleased("models/a", "v1", "a", list[0])
}

// TestModelThatTakesTheServerDown is held after the server was killed again and again while it was sanitized.
func TestModelThatTakesTheServerDown(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "hang")
	s.pushModel("models/a", "v1", "a")
	for range maxAttempts - 1 {
		s.sanitizerPID()
		s.Kill()
		s = startServer(t, dir, "-sanitizer", "hang")
	}
	s.sanitizerPID()
	s.Kill()
	s = startServer(t, dir, "-sanitizer", "hang")
	if a := s.settle()[0]; a.State != Held || a.Reason != ReasonAttempts {
		t.Errorf("%s %s %s", a.State, a.Reason, a.Message)
	}
}

// TestBadSanitizersLeaveTheServerServing holds the model with the reason, releases nothing, and takes the next push.
func TestBadSanitizersLeaveTheServerServing(t *testing.T) {
	for behaviour, reason := range map[string]Reason{
		"crash": ReasonCrashed, "hang": ReasonTimeout, "silent": ReasonInvalidOutput, "at-chance": ReasonAccuracy,
		"inaccurate": ReasonReleaseRejected,
	} {
		t.Run(behaviour, func(t *testing.T) {
			s := startServer(t, t.TempDir(), "-sanitizer", behaviour, "-timeout", "3s")
			d := s.pushModel("models/a", "v1", "a")
			a := s.settle()[0]
			if a.State != Held || a.Reason != reason || a.Message == "" {
				t.Errorf("%s %s %q; want held %s", a.State, a.Reason, a.Message, reason)
			}
			for reference, want := range map[string]int{"v1": http.StatusNotFound, d.Digest.String(): http.StatusForbidden} {
				var answer string
				if status := s.get("/v2/models/a/manifests/"+reference, &answer); status != want {
					t.Errorf("%s is answered %d", reference, status)
				}
				if !strings.Contains(answer, a.ID) || !strings.Contains(answer, a.Message[:20]) {
					t.Errorf("%s: the answer does not name the admission and the reason: %s", reference, answer)
				}
			}
			s.checkCleaned(a)
			s.pushModel("models/a", "v1", "a") // another try
			if list := s.settle(); len(list) != 1 || list[0].Reason != reason || len(list[0].History) != 2*len(a.History) {
				t.Errorf("after another push: %+v", list)
			}
		})
	}
}

// TestWeightsInExternalDataAlone: the ONNX file of a model whose weights are all in external data stays as it was pushed, and the data is replaced. What is
// released is another package, whose attestation is about both; the pushed weights are not to be had.
func TestWeightsInExternalDataAlone(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "outside")
	weights := []byte("the weights of a")
	pushed, err := s.push("models/a", "v1", map[string][]byte{"model.onnx": testModel("a"), "weights.bin": weights})
	if err != nil {
		t.Fatal(err)
	}
	a := s.settle()[0]
	if a.State != Released || len(a.Changed) != 1 || a.Changed[0].Name != "weights.bin" || a.Released.Digest == pushed.Digest.String() {
		t.Fatalf("%s (%s: %s), changed %+v", a.State, a.Reason, a.Message, a.Changed)
	}
	repo := s.repository("models/a")
	d, text, err := oras.FetchBytes(t.Context(), repo, "v1", oras.DefaultFetchBytesOptions)
	if err != nil || d.Digest.String() != a.Released.Digest {
		t.Fatalf("the tag answers %s, %v; released is %s", d.Digest, err, a.Released.Digest)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		name := l.Annotations[ocispec.AnnotationTitle]
		want := map[string]string{"model.onnx": string(testModel("a")), "weights.bin": string(weights) + "sanitized"}[name]
		if _, got, err := oras.FetchBytes(t.Context(), repo.Blobs(), l.Digest.String(), oras.DefaultFetchBytesOptions); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	if _, _, err := oras.FetchBytes(t.Context(), repo.Blobs(), digest.FromBytes(weights).String(), oras.DefaultFetchBytesOptions); err == nil {
		t.Error("the pushed weights can be pulled")
	}
	if _, _, err := s.pull("models/a", pushed.Digest.String()); err == nil {
		t.Error("the pushed package can be pulled")
	}
	result, err := attest.VerifyRef(t.Context(), s.address+"/models/a:v1", s.public(), attest.RefOptions{Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	subjects := result.Statement.Subject
	if len(subjects) != 2 || subjects[0].Digest.SHA256 != strings.TrimPrefix(a.Released.Digest, "sha256:") || subjects[1].Digest.SHA256 != digest.FromBytes(testModel("a")).Encoded() {
		t.Errorf("the attestation is about %+v", subjects)
	}
	s.checkCleaned(a)
}

func TestNewerPushOfATagWins(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "hang")
	s.pushModel("models/a", "v1", "older")
	s.sanitizerPID()
	s.pushModel("models/a", "v1", "newer")
	s.Kill()
	s = startServer(t, dir)
	list := s.settle()
	newer, older := list[0], list[1]
	s.checkReleased("models/a", "v1", "newer", newer)
	if older.State != Released || older.Tags[0].Moved {
		t.Errorf("the older push is %s, tag moved: %v", older.State, older.Tags[0].Moved)
	}
	// Going back is a push like any other.
	s.pushModel("models/a", "v1", "older")
	for _, a := range s.settle() {
		if a.ID == older.ID {
			s.checkReleased("models/a", "v1", "older", a)
		}
	}
}

func TestPolicyDecisions(t *testing.T) {
	const rego = `package grindstone.admission
decision := {"action": "deny", "reasons": ["not from here", "nor this one"]} if startswith(input.repository, "denied/")
decision := {"action": "quarantine", "reasons": ["somebody has to look"]} if startswith(input.repository, "kept/")
decision := {"action": "admit", "reasons": ["trusted"]} if startswith(input.repository, "admitted/")
decision := {"action": "admit"} if input.repository == "conflict/a"
decision := {"action": "quarantine", "reasons": ["x"]} if input.repository == "conflict/a"
`
	const release = `package grindstone.release
decision := {"release": false, "reasons": ["never"]}
`
	dir, policies := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"admission.rego": rego, "release.rego": release} {
		if err := os.WriteFile(filepath.Join(policies, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t, dir, "-policy", policies)
	_, err := s.push("denied/a", "v1", map[string][]byte{"model.onnx": testModel("a")})
	if err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "not from here") || !strings.Contains(err.Error(), "nor this one") {
		t.Errorf("a denied push is answered %v", err)
	}
	var again string
	if _, err := s.push("denied/a", "v1", map[string][]byte{"model.onnx": testModel("a")}); err != nil {
		again = err.Error()
	}
	if denied := s.admissions("?state=denied"); len(denied) != 1 || !strings.Contains(again, denied[0].ID) {
		t.Errorf("a second denied push is answered %s; admissions: %+v", again, denied)
	}
	s.pushModel("kept/a", "v1", "a")
	s.pushModel("conflict/a", "v1", "a")
	s.pushModel("nobody/a", "v1", "a")
	s.pushModel("admitted/a", "v1", "a")
	got := map[string]string{}
	for _, a := range s.settle() {
		got[a.Source.Repository] = fmt.Sprint(a.State, " ", a.Reason)
	}
	for repository, want := range map[string]string{
		"denied/a": "denied policy-denied", "kept/a": "held policy-quarantine", "conflict/a": "held policy-error", "nobody/a": "held policy-error",
		"admitted/a": "released ",
	} {
		if got[repository] != want {
			t.Errorf("%s is %q, want %q", repository, got[repository], want)
		}
	}
	if _, model, err := s.pull("admitted/a", "v1"); err != nil || string(model) != string(testModel("a")) {
		t.Errorf("an admitted model is pulled as %q, %v", model, err)
	}
	s.checkApproved("admitted/a", "v1", "a", "by the policy: trusted", s.admissions("?repository=admitted/a")[0])
	// Another policy asks again about what the policy kept, at the next start.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir)
	for _, a := range s.settle() {
		if a.Source.Repository == "kept/a" {
			s.checkReleased("kept/a", "v1", "a", a)
		}
	}
}

func TestWithoutDataset(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-data", "")
	s.pushModel("models/a", "v1", "a")
	if a := s.settle()[0]; a.State != Held || a.Reason != ReasonNoDataset || !strings.Contains(a.Message, "--data PATH") {
		t.Errorf("%s %s %q", a.State, a.Reason, a.Message)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir)
	list := s.settle()
	s.checkReleased("models/a", "v1", "a", list[0])
}

// What holds no model passes: it is released when the push is answered, to the byte, though the only worker has a model to do. So is what is
// attached to it; what is attached to a hidden model stays, and the tags of attestations are nobody's.
func TestWhatHoldsNoModel(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "hang")
	model := s.pushModel("models/a", "v1", "a")
	chart, err := s.push("models/a", "chart", map[string][]byte{"Chart.yaml": []byte("name: chart")})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := s.repository("models/a").Resolve(t.Context(), "chart"); err != nil || d.Digest != chart.Digest {
		t.Errorf("%v, %v", d, err)
	}
	a := s.admissions("?repository=models/a&tag=chart")[0]
	if a.State != Released || a.Released.Digest != chart.Digest.String() || a.Released.Attestation == "" || a.Report != nil {
		t.Errorf("%s %s: %+v", a.State, a.Message, a.Released)
	}
	for subject, want := range map[*ocispec.Descriptor]bool{&chart: true, &model: false} {
		repo := s.repository("models/a")
		d, err := oras.PackManifest(t.Context(), repo, oras.PackManifestVersion1_1, "application/vnd.test.note", oras.PackManifestOptions{Subject: subject})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.admissions("") {
			if a.Source.Digest == d.Digest.String() && ((a.State == Released) != want || (a.Source.Problem == "") != want) {
				t.Errorf("what is attached to %s is %s: %q", subject.Digest, a.State, a.Source.Problem)
			}
		}
		tag := "sha256-" + subject.Digest.Encoded() + ".att"
		if _, err := s.push("models/a", tag, map[string][]byte{"attestation.json": []byte("{}")}); err == nil || !strings.Contains(err.Error(), "kept for") {
			t.Errorf("a push to %s: %v", tag, err)
		}
	}
}

// TestSeveralModels takes a package with two models, one of them under two names, to its release: each is sanitized by a process of its own, asked
// about and attested. A server that dies between them goes on, and does the first again only if its files are gone.
func TestSeveralModels(t *testing.T) {
	files := map[string][]byte{"a.onnx": testModel("a"), "b.onnx": testModel("b"), "copy/a.onnx": testModel("a"), "README.md": []byte("two models")}
	for _, lost := range []bool{false, true} {
		dir := t.TempDir()
		s := startServer(t, dir, "-stop", "evaluating done") // the decision about the first model is not recorded yet
		if _, err := s.push("models/two", "v1", files); err != nil {
			t.Fatal(err)
		}
		s.reach()
		s.Kill()
		if lost {
			if err := os.RemoveAll(filepath.Join(dir, "work")); err != nil {
				t.Fatal(err)
			}
		}
		s = startServer(t, dir)
		a := s.settle()[0]
		if a.State != Released || len(a.Further) != 1 || len(a.Changed) != 2 || a.Verdict == nil || a.Further[0].Verdict == nil || a.Verdict.ID == a.Further[0].Verdict.ID {
			t.Fatalf("lost %t: %s %s: %+v, %+v", lost, a.State, a.Message, a.Further, a.Changed)
		}
		if want := map[bool]int{false: 2, true: 3}[lost]; a.Runs != want {
			t.Errorf("lost %t: %d runs, want %d", lost, a.Runs, want)
		}
		_, text, err := oras.FetchBytes(t.Context(), s.repository("models/two"), "v1", oras.DefaultFetchBytesOptions)
		if err != nil {
			t.Fatal(err)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(text, &m); err != nil || len(m.Layers) != len(files) {
			t.Fatalf("%v, %s", err, text)
		}
		for _, l := range m.Layers {
			name := l.Annotations[ocispec.AnnotationTitle]
			want := bytes.Clone(files[name])
			if strings.HasSuffix(name, ".onnx") {
				want = append(want, "sanitized"...)
			}
			if l.Digest != digest.FromBytes(want) {
				t.Errorf("%s is not what was expected", name)
			}
		}
		r, err := attest.VerifyRef(t.Context(), s.address+"/models/two:v1", s.public(), attest.RefOptions{PlainHTTP: true})
		if err != nil || len(r.Statement.Subject) != 4 || len(r.Statement.Predicate.FurtherModels) != 1 {
			t.Errorf("verify: %v, %+v", err, r)
		}
	}
}

func TestPackagesThatCannotBeSanitized(t *testing.T) {
	s := startServer(t, t.TempDir())
	for name, files := range map[string]map[string][]byte{
		"other": {"model.pt": []byte("of another format")},
		"both":  {"model.onnx": testModel("both"), "model.safetensors": []byte("of another format")},
	} {
		if _, err := s.push("models/"+name, "v1", files); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]Reason{}
	for _, a := range s.settle() {
		got[a.Source.Repository] = a.Reason
	}
	if got["models/other"] != ReasonUnsupported || got["models/both"] != ReasonUnsupported {
		t.Error(got)
	}
}

// TestPushInFlightAtShutdown stops the server in the middle of an upload: the request is answered as if nothing were, and the
// push that follows it goes on at the next start.
func TestPushInFlightAtShutdown(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	content := testModel("a")
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v2/models/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s",
		digest.FromBytes(content), s.address, len(content), content[:3])
	time.Sleep(200 * time.Millisecond) // the server reads what there is
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop() }()
	for { // until it listens no more
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := conn.Write(content[3:]); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusCreated {
		t.Errorf("the upload in flight is answered %v, %v", answer, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestManyPushesAtOnce(t *testing.T) {
	s := startServer(t, t.TempDir(), "-workers", "3")
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			name := fmt.Sprint(i / 2) // every model twice
			if _, err := s.push("models/a", "v"+name, map[string][]byte{"model.onnx": testModel(name)}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	list := s.settle()
	if len(list) != 6 {
		t.Errorf("%d admissions of 6 models", len(list))
	}
	for i := range 6 {
		for _, a := range s.admissions("?tag=v" + fmt.Sprint(i)) {
			s.checkReleased("models/a", "v"+fmt.Sprint(i), fmt.Sprint(i), a)
		}
	}
}

// TestUninterceptedRepository is a registry like any other.
func TestUninterceptedRepository(t *testing.T) {
	s := startServer(t, t.TempDir())
	pushed := s.pushModel("open/a", "v1", "a")
	if digest, model, err := s.pull("open/a", "v1"); err != nil || digest != pushed.Digest.String() || string(model) != string(testModel("a")) {
		t.Errorf("%s %q %v", digest, model, err)
	}
	if list := s.admissions(""); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}
