package webhook

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"grindstone/sanitize"
)

// alive reports whether a process runs; one that waits to be reaped does not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// sanitizerPID waits for the sanitizer that hangs, and follows the events for its process id.
func (s *serverProcess) sanitizerPID() int {
	s.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, a := range s.admissions("?state=sanitizing") {
			for e := range s.events(a.ID, "") {
				if e.name == "progress" && strings.Contains(e.data, `"grind"`) {
					_, rest, _ := strings.Cut(e.data, `"message":"`)
					text, _, _ := strings.Cut(rest, `"`)
					pid, err := strconv.Atoi(text)
					if err != nil {
						s.Fatal(err)
					}
					return pid
				}
			}
		}
	}
	s.Fatal("no sanitizer runs")
	return 0
}

type event struct{ id, name, data string }

// events follows the stream until it ends or the caller stops.
func (s *serverProcess) events(id, last string) func(yield func(event) bool) {
	return func(yield func(event) bool) {
		r, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://"+s.address+"/api/v1/admissions/"+id+"/events", nil)
		if err != nil {
			s.Fatal(err)
		}
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			s.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode == http.StatusNoContent {
			return
		}
		if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
			s.Fatalf("events: %d %s", answer.StatusCode, got)
		}
		var e event
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			case "":
				if e.name != "" && !yield(e) {
					return
				}
				e = event{}
			}
		}
	}
}

func TestEvents(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "slow-1s")
	s.pushModel("models/a", "v1", "a")
	a := s.admissions("")[0]
	var all []event
	for e := range s.events(a.ID, "") {
		all = append(all, e)
	}
	states, lines := []string{}, 0
	for _, e := range all {
		if e.name == "progress" {
			lines++
		} else {
			states = append(states, regexp.MustCompile(`"state":"([a-z]+)"`).FindStringSubmatch(e.data)[1])
		}
	}
	if got := strings.Join(states, " "); got != "quarantined deciding sanitizing evaluating attesting releasing released" || lines < 5 {
		t.Errorf("states %s and %d lines of progress", got, lines)
	}
	// Whoever was cut off goes on behind the last event seen and misses no change.
	for i, seen := range all {
		if seen.name != "state" {
			continue
		}
		var rest []string
		for e := range s.events(a.ID, seen.id) {
			rest = append(rest, e.id)
		}
		var want []string
		for _, e := range all[i+1:] {
			if e.name == "state" {
				want = append(want, e.id)
			}
		}
		if strings.Join(rest, " ") != strings.Join(want, " ") {
			t.Errorf("after %s come %v, want %v", seen.id, rest, want)
		}
	}
}

// TestEventsAcrossARestart follows an admission, loses the server, and goes on behind the last event seen.
func TestEventsAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "hang")
	s.pushModel("models/a", "v1", "a")
	a, last := s.admissions("")[0], ""
	for e := range s.events(a.ID, "") {
		if last = e.id; e.name == "progress" && strings.Contains(e.data, "grind") {
			break
		}
	}
	s.Kill()
	s = startServer(t, dir, "-sanitizer", "slow-1s")
	var names []string
	for e := range s.events(a.ID, last) {
		names = append(names, e.name)
	}
	if got := strings.Join(names, " "); !strings.HasPrefix(got, "state progress") || !strings.HasSuffix(got, "state state state state") {
		t.Errorf("after the restart come %s", got)
	}
}

func TestShutdownEndsEventStreams(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "hang")
	s.pushModel("models/a", "v1", "a")
	s.sanitizerPID()
	ended := make(chan int, 1)
	began := make(chan struct{})
	go func() {
		n := 0
		for range s.events(s.admissions("")[0].ID, "") {
			if n++; n == 1 {
				close(began)
			}
		}
		ended <- n
	}()
	<-began
	begin := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the shutdown waited %v for a stream", took)
	}
	<-ended
}

func TestAPI(t *testing.T) {
	s := startServer(t, t.TempDir())
	s.pushModel("models/a", "v1", "a")
	s.pushModel("models/b", "v1", "b")
	list := s.settle()
	b := list[0]
	for query, want := range map[string]int{
		"": 2, "?state=released": 2, "?state=held": 0, "?repository=models/a": 1, "?tag=v1": 2, "?tag=v2": 0, "?reason=policy-denied": 0,
		"?digest=" + b.Source.Digest: 1, "?digest=" + b.Released.Digest: 1, "?limit=1": 1, "?limit=5&offset=1": 1, "?offset=7": 0,
	} {
		if got := len(s.admissions(query)); got != want {
			t.Errorf("%q lists %d, want %d", query, got, want)
		}
	}
	var one Admission
	if s.get("/api/v1/admissions/"+b.ID, &one) != http.StatusOK || one.ID != b.ID || one.Report == nil || one.Decision == nil {
		t.Errorf("%+v", one)
	}
	var health string
	if s.get("/healthz", &health) != http.StatusOK || !strings.Contains(health, "ok") {
		t.Error(health)
	}
	var ready struct {
		Ready  bool
		Checks []struct {
			Name  string
			Ready bool
		}
	}
	if s.get("/readyz", &ready) != http.StatusOK || !ready.Ready || len(ready.Checks) != 5 {
		t.Errorf("%+v", ready)
	}
	var metrics string
	s.get("/metrics", &metrics)
	for _, line := range []string{
		`grindstone_admissions{reason="",state="released"} 2`, `grindstone_admissions{reason="",state="sanitizing"} 0`,
		`grindstone_sanitize_seconds_count{outcome="ok"} 2`, `grindstone_queue_depth 0`,
		`grindstone_http_request_seconds_count{code="200",method="GET",route="/api/v1/admissions/:id"} 1`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	type failure struct {
		Errors []struct{ Code, Message string }
		ID     string `json:"request_id"`
	}
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/api/v1/admissions/nobody":        {404, "NOT_FOUND"},
		"/api/v1/admissions/nobody/events": {404, "NOT_FOUND"},
		"/api/v1/admissions?state=lost":    {400, "BAD_REQUEST"},
		"/api/v1/admissions?limit=-1":      {400, "BAD_REQUEST"},
		"/api/v1/admissions?sate=held":     {400, "BAD_REQUEST"},
		"/nothing/here":                    {404, "NOT_FOUND"},
		"/api/v1/admissions/..%2f..%2fkey": {404, "NOT_FOUND"},
	} {
		var f failure
		if status := s.get(path, &f); status != want.status || len(f.Errors) != 1 || f.Errors[0].Code != want.code || f.Errors[0].Message == "" || f.ID == "" {
			t.Errorf("%s: %d %+v", path, status, f)
		}
	}
	for path, words := range map[string]string{
		"/api/v1/admissions?state=lost": "the states are quarantined, deciding, sanitizing", "/api/v1/admissions?sate=held": "known are state, reason, repository",
		"/api/v1/notifications?state=lost": "the states are pending, delivered, failed",
	} {
		var f failure
		if s.get(path, &f); !strings.Contains(f.Errors[0].Message, words) {
			t.Errorf("%s: %+v", path, f)
		}
	}
	r, err := http.Post("http://"+s.address+"/api/v1/admissions", "application/json", strings.NewReader("{}"))
	if err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v %v", r, err)
	}
	r.Body.Close()
}

// TestAdmissionByPrefix: the beginning of an id names an admission where no other's begins so, in every request about one.
func TestAdmissionByPrefix(t *testing.T) {
	s := startServer(t, t.TempDir(), "-data", "")
	s.pushModel("models/a", "v1", "a")
	s.pushModel("models/b", "v1", "b")
	list := s.settle()
	common := 0
	for list[0].ID[common] == list[1].ID[common] {
		common++
	}
	for _, a := range list {
		var got Admission
		if status := s.get("/api/v1/admissions/"+a.ID[:common+1], &got); status != http.StatusOK || got.ID != a.ID {
			t.Errorf("the beginning of %s: %d, %s", a.ID, status, got.ID)
		}
	}
	var f struct{ Errors []struct{ Message string } }
	if status := s.get("/api/v1/admissions/"+list[0].ID[:common], &f); status != http.StatusBadRequest || !strings.Contains(f.Errors[0].Message, "2 admissions") {
		t.Errorf("the beginning of both: %d %+v", status, f)
	}
	if status := s.get("/api/v1/admissions/"+list[0].ID[:1], nil); status != http.StatusNotFound {
		t.Errorf("one character: %d", status)
	}
	if status, text := s.post("/api/v1/admissions/"+list[0].ID[:common+1]+"/reject", `{"reason": "unknown origin"}`); status != http.StatusOK {
		t.Errorf("reject by prefix: %d %s", status, text)
	}
	if a := s.admission(list[0].ID); a.State != Denied {
		t.Errorf("%s is %s", a.ID, a.State)
	}
}

// TestNotReady takes the store's folder away.
func TestNotReady(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	if err := os.Rename(dir+"/state/admissions", dir+"/state/gone"); err != nil {
		t.Fatal(err)
	}
	var ready struct {
		Ready  bool
		Checks []struct{ Name, Reason string }
	}
	if status := s.get("/readyz", &ready); status != http.StatusServiceUnavailable || ready.Ready || ready.Checks[0].Reason != "the admission store is not writable" {
		t.Errorf("%d %+v", status, ready)
	}
	// A push that cannot be recorded is not acknowledged.
	if _, err := s.push("models/a", "v1", map[string][]byte{"model.onnx": testModel("a")}); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("the push is answered %v", err)
	}
	if err := os.Rename(dir+"/state/gone", dir+"/state/admissions"); err != nil {
		t.Fatal(err)
	}
	s.pushModel("models/a", "v1", "a")
	list := s.settle()
	s.checkReleased("models/a", "v1", "a", list[0])
}

func TestEventOrder(t *testing.T) {
	a := &Admission{History: make([]Change, 3)}
	lines := []Event{{Change: 3, Line: 1, Progress: &sanitize.Progress{}}, {Change: 3, Line: 2, Progress: &sanitize.Progress{}}, {Change: 2, Line: 9, Progress: &sanitize.Progress{}}}
	for _, c := range []struct {
		change, line int
		want         string
	}{{0, 0, "1.0 2.0 3.0 3.1 3.2"}, {2, 40, "3.0 3.1 3.2"}, {3, 1, "3.2"}, {3, 2, ""}, {9, 0, ""}} {
		var got []string
		for _, e := range eventsAfter(a, lines, c.change, c.line) {
			got = append(got, e.ID())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("after %d.%d: %v, want %s", c.change, c.line, got, c.want)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var a Admission
	for range maxHistory + 5 {
		a.enter(Sanitizing, "", "", time.Now())
	}
	if len(a.History) != maxHistory || a.changes() != maxHistory+5 {
		t.Errorf("%d entries of %d", len(a.History), a.changes())
	}
	events := eventsAfter(&a, nil, maxHistory+3, 0)
	if len(events) != 2 || events[1].Change != maxHistory+5 {
		t.Errorf("%+v", events)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"a\nb\tc": "a b c", "\x1b[31mred\x07": "[31mred", "größer": "größer", "123456789": "12345678…", "\xff": "\ufffd"} {
		if got := printable(in, 8); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
