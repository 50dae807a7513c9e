package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"grindstone/attest"
	"grindstone/registry"
	"grindstone/sanitize"
)

// post sends a JSON body and returns the status and the answer.
func (s *serverProcess) post(path, body string) (int, string) {
	s.Helper()
	r, err := http.Post("http://"+s.address+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		s.Fatal(err)
	}
	return r.StatusCode, string(text)
}

func (s *serverProcess) admission(id string) Admission {
	s.Helper()
	var a Admission
	if status := s.get("/api/v1/admissions/"+id, &a); status != http.StatusOK {
		s.Fatalf("admission %s: %d", id, status)
	}
	return a
}

// checkApproved checks that the tag answers with the pushed model, and that its attestation says that it was not sanitized.
func (s *serverProcess) checkApproved(repository, tag, name, says string, a Admission) {
	s.Helper()
	if a.State != Released || a.Released == nil || a.Released.Digest != a.Source.Digest || a.Released.Attestation == "" {
		s.Fatalf("%s %s %s, released %+v", a.State, a.Reason, a.Message, a.Released)
	}
	if digest, model, err := s.pull(repository, tag); err != nil || digest != a.Source.Digest || string(model) != string(testModel(name)) {
		s.Errorf("the tag answers %s %q, %v", digest, model, err)
	}
	r, err := attest.VerifyRef(s.Context(), s.address+"/"+repository+":"+tag, s.public(), attest.RefOptions{Anonymous: true})
	if !errors.Is(err, attest.ErrVerification) || !strings.Contains(err.Error(), "approved without sanitizing") || !strings.Contains(err.Error(), says) {
		s.Errorf("verified as %v", err)
	}
	if err := r.AcceptApproved(); err != nil {
		s.Errorf("accepted as approved: %v", err)
	}
	if a.Approval != nil && (r.Statement == nil || r.Statement.Approval == nil || r.Statement.Approval.Decision.ID != a.Approval.ID || !r.Statement.Approval.ApprovedAt.Equal(a.Approval.At.Truncate(time.Second))) {
		s.Errorf("the attestation does not name the operation %+v", a.Approval)
	}
	s.checkCleaned(a)
}

// lineWith is the first line of a text that has the words.
func lineWith(text, words string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, words) {
			return line
		}
	}
	return ""
}

func TestApprove(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "at-chance")
	pushed := s.pushModel("models/a", "v1", "a")
	a := s.settle()[0]
	path := "/api/v1/admissions/" + a.ID
	for body, want := range map[string]int{`{}`: 400, `{"reason": ""}`: 400, `{"reason": 1}`: 400, `{"Grund": "x"}`: 400, `{"reason": "a"} {}`: 400,
		`{"reason": "` + strings.Repeat("x", 501) + `"}`: 400, `{"reason": "` + strings.Repeat("x", 70000) + `"}`: 413} {
		if status, text := s.post(path+"/approve", body); status != want {
			t.Errorf("%.60s is answered %d %s", body, status, text)
		}
	}
	if status, text := s.post("/api/v1/admissions/nobody/approve", `{"reason": "x"}`); status != 404 {
		t.Errorf("an unknown admission: %d %s", status, text)
	}
	if _, _, err := s.pull("models/a", "v1"); err == nil {
		t.Fatal("the tag answers before anything was approved")
	}
	if status, text := s.post(path+"/approve", `{"reason": "looked at\nby hand"}`); status != http.StatusOK || !strings.Contains(text, `"by":"loopback"`) {
		t.Fatalf("%d %s", status, text)
	}
	a = s.settle()[0]
	s.checkApproved("models/a", "v1", "a", "operator loopback: looked at by hand", a)
	if len(a.Operations) != 1 || a.Operations[0].Action != OperationApprove {
		t.Fatalf("operations %+v", a.Operations)
	}
	for _, words := range []string{`msg="operator decision"`, a.Operations[0].ID, "action=approve", "operator=loopback", `reason="looked at by hand"`, a.ID, a.Source.Digest} {
		if !strings.Contains(lineWith(s.Stderr.String(), "operator decision"), words) {
			t.Errorf("the decision log lacks %s:\n%s", words, s.Stderr)
		}
	}
	for _, operation := range []string{"approve", "reject", "retry"} {
		if status, text := s.post(path+"/"+operation, `{"reason": "again"}`); status != http.StatusConflict {
			t.Errorf("%s of what is released: %d %s", operation, status, text)
		}
	}
	// The same package under another tag joins: it stays approved, and its attestation the one that it has.
	s.pushModel("models/a", "v2", "a")
	again := s.settle()[0]
	s.checkApproved("models/a", "v2", "a", "operator loopback", again)
	if again.Released.Attestation != a.Released.Attestation || again.Source.Digest != pushed.Digest.String() {
		t.Errorf("released %+v, was %+v", again.Released, a.Released)
	}
}

// TestApprovalSurvivesAKill kills the server at every point between the approval and the release.
func TestApprovalSurvivesAKill(t *testing.T) {
	for _, point := range []string{"package released", "attestation signed", "attestation attached", "attesting done", "tag moved"} {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			s := startServer(t, dir, "-sanitizer", "at-chance", "-stop", point)
			s.pushModel("models/a", "v1", "a")
			id := s.settle()[0].ID
			if status, text := s.post("/api/v1/admissions/"+id+"/approve", `{"reason": "x"}`); status != http.StatusOK {
				t.Fatalf("%d %s", status, text)
			}
			s.reach()
			s.Kill()
			s = startServer(t, dir, "-sanitizer", "at-chance")
			s.checkApproved("models/a", "v1", "a", "operator loopback: x", s.settle()[0])
		})
	}
}

// TestReject rejects a model that is held and one whose sanitizer runs, which is ended.
func TestReject(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "hang")
	s.pushModel("models/a", "v1", "a")
	pid := s.sanitizerPID()
	id := s.admissions("")[0].ID
	if status, text := s.post("/api/v1/admissions/"+id+"/approve", `{"reason": "x"}`); status != http.StatusConflict {
		t.Errorf("a model in work is approved: %d %s", status, text)
	}
	if status, text := s.post("/api/v1/admissions/"+id+"/reject", `{"reason": "unknown origin"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	a := s.settle()[0]
	if a.State != Denied || a.Reason != ReasonRejected || a.Message != "rejected by loopback: unknown origin" || a.Attempts != 0 {
		t.Errorf("%s %s %q, %d attempts", a.State, a.Reason, a.Message, a.Attempts)
	}
	for deadline := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the sanitizer %d of a rejected model runs on", pid)
		}
	}
	s.checkCleaned(a)
	for range 2 { // also after a restart, under another policy
		if _, err := s.push("models/a", "v2", map[string][]byte{"model.onnx": testModel("a")}); err == nil || !strings.Contains(err.Error(), "unknown origin") {
			t.Errorf("pushed again: %v", err)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		policies := t.TempDir()
		for name, text := range map[string]string{"admission": `decision := {"action": "admit"}`, "release": `decision := {"release": true}`} {
			if err := os.WriteFile(filepath.Join(policies, name+".rego"), []byte("package grindstone."+name+"\n"+text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s = startServer(t, dir, "-policy", policies)
	}
	if list := s.admissions(""); len(list) != 1 || list[0].State != Denied {
		t.Errorf("%+v", list)
	}
	// A retry asks the policy anew.
	if status, text := s.post("/api/v1/admissions/"+id+"/retry", ``); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	s.checkApproved("models/a", "v1", "a", "by the policy: the policy admits it", s.settle()[0])
}

// TestRejectIsOfTheModel: another package with the model that was rejected, as a client makes one at each push, is denied in that repository, until a retry.
func TestRejectIsOfTheModel(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "at-chance")
	s.pushModel("models/a", "v1", "a")
	a := s.settle()[0]
	if status, text := s.post("/api/v1/admissions/"+a.ID+"/reject", `{"reason": "unknown origin"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	again := map[string][]byte{"renamed.onnx": testModel("a"), "README.md": []byte("now with a readme")}
	if _, err := s.push("models/a", "v2", again); err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "unknown origin") || !strings.Contains(err.Error(), a.ID) {
		t.Errorf("the model in another package: %v", err)
	}
	for repository, name := range map[string]string{"models/a": "another model", "models/b": "a"} {
		if _, err := s.push(repository, "v1", map[string][]byte{"model.onnx": testModel(name)}); err != nil {
			t.Errorf("%s in %s: %v", name, repository, err)
		}
	}
	if list := s.admissions("?repository=models/a"); len(list) != 2 {
		t.Errorf("%+v", list)
	}
	if status, text := s.post("/api/v1/admissions/"+a.ID+"/retry", ``); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if _, err := s.push("models/a", "v2", again); err != nil {
		t.Errorf("after a retry: %v", err)
	}
}

func TestRejectGivesTheTagBack(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	s.pushModel("models/a", "v1", "older")
	older := s.settle()[0]
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir, "-sanitizer", "at-chance")
	s.pushModel("models/a", "v1", "newer")
	newer := s.settle()[0]
	if status, text := s.post("/api/v1/admissions/"+newer.ID+"/reject", `{"reason": "x"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	s.pushModel("models/a", "v1", "older")
	s.settle()
	s.checkReleased("models/a", "v1", "older", s.admission(older.ID))
}

func TestRetry(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "at-chance")
	s.pushModel("models/a", "v1", "a")
	a := s.settle()[0]
	if status, text := s.post("/api/v1/admissions/"+a.ID+"/retry", `{"reason": "the data was mended"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	again := s.settle()[0]
	if again.Reason != ReasonAccuracy || len(again.History) != 2*len(a.History) {
		t.Errorf("%s %+v", again.Reason, again.History)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir)
	if status, text := s.post("/api/v1/admissions/"+a.ID+"/retry", `{}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	a = s.settle()[0]
	s.checkReleased("models/a", "v1", "a", a)
	var log string
	if s.get("/api/v1/admissions/"+a.ID+"/logs", &log); strings.Count(log, `"state":"sanitizing"`) != 3 || strings.Count(log, "load: reading") != 3 ||
		!strings.Contains(log, "tried again by loopback: the data was mended") || !strings.Contains(log, "accuracy on the clean dataset is at chance") {
		t.Errorf("the log is\n%s", log)
	}
}

// TestWhoMayOperate: without logins it is who is on the machine, and no page of another site.
func TestWhoMayOperate(t *testing.T) {
	s := startServer(t, t.TempDir(), "-data", "")
	s.pushModel("models/a", "v1", "a")
	a := s.settle()[0]
	for name, headers := range map[string]map[string]string{
		"another site": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
		"old browser":  {"Origin": "https://evil.example"},
		"proxied":      {"X-Forwarded-For": "203.0.113.9"},
		"rebound name": {"Host": "evil.example"},
	} {
		r, err := http.NewRequest(http.MethodPost, "http://"+s.address+"/api/v1/admissions/"+a.ID+"/reject", strings.NewReader(`{"reason": "x"}`))
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range headers {
			r.Header.Set(key, value)
		}
		r.Host = r.Header.Get("Host")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden {
			t.Errorf("%s is answered %d", name, answer.StatusCode)
		}
	}
	if a = s.admission(a.ID); a.State != Held || len(a.Operations) != 0 {
		t.Errorf("%s %+v", a.State, a.Operations)
	}
}

type nobody struct{ err error }

func (n nobody) Operator(*http.Request) (string, error) { return "", n.err }

func TestOperatorsAreAsked(t *testing.T) {
	for err, want := range map[error]int{ErrUnauthenticated: 401, errors.New("ada may not operate"): 403} {
		p, perr := NewPipeline(PipelineConfig{Dir: t.TempDir(), Sanitizer: SanitizerConfig{Command: []string{"none"}}})
		if perr != nil {
			t.Fatal(perr)
		}
		server := NewServer(ServerConfig{Operators: nobody{err}}, p, &registry.Gateway{}, slog.New(slog.DiscardHandler))
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v1/admissions/x/retry", nil))
		if w.Code != want || !strings.Contains(w.Body.String(), err.Error()) {
			t.Errorf("%v is answered %d %s", err, w.Code, w.Body)
		}
	}
}

func TestLoopbackOperators(t *testing.T) {
	for _, c := range []struct {
		remote, host string
		allowed      bool
	}{
		{"127.0.0.1:1", "127.0.0.1:5050", true}, {"[::1]:1", "localhost:5050", true}, {"127.0.0.9:1", "[::1]", true},
		{"192.0.2.1:1", "127.0.0.1:5050", false}, {"127.0.0.1:1", "registry.example", false}, {"", "", false},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr, r.Host = c.remote, c.host
		if _, err := (LoopbackOperators{}).Operator(r); (err == nil) != c.allowed {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestRunLogIsBounded(t *testing.T) {
	l, err := newRunLogs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	for i := range n {
		if err := l.add("a", sanitize.Progress{Phase: "grind", Step: i, Steps: n, Message: "line " + fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		if err := l.add("a", sanitize.Progress{Phase: "grind", Step: i, Steps: n}); err != nil { // says nothing new
			t.Fatal(err)
		}
	}
	lines, err := l.read("a")
	info, serr := os.Stat(l.path("a"))
	if err != nil || serr != nil || info.Size() > maxRunLog || len(lines) < 100 || !strings.HasSuffix(lines[len(lines)-1].Text, ": line 1999") {
		t.Errorf("%d lines, %v, %v", len(lines), err, serr)
	}
	for i, line := range lines[1:] {
		if line.At.Before(lines[i].At) || strings.HasSuffix(line.Text, "/2000") {
			t.Fatalf("line %d: %+v", i, line)
		}
	}
	if err := os.WriteFile(l.path("b"), []byte(`{"at":"2026-01-02T03:04:05Z","text":"x"}`+"\n"+`{"at":"20`), 0o600); err != nil {
		t.Fatal(err)
	}
	if lines, err := l.read("b"); err != nil || len(lines) != 1 {
		t.Errorf("a line that was cut off: %v, %v", lines, err)
	}
	if text, err := json.Marshal(lines[0]); err != nil || !json.Valid(text) {
		t.Error(err)
	}
}
