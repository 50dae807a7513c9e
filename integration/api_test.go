package integration

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"grindstone/internal/testprocess"
	"grindstone/webhook"
)

// get reads a page of the server into a *string, or as JSON, and returns the status.
func (s *server) get(path string, into any) int {
	s.Helper()
	return testprocess.Get(s.T, "http://"+s.address+path, into)
}

// getAs is get with the user logged in.
func (s *server) getAs(user, path string, into any) int {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, user+user)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	if into != nil && answer.StatusCode == http.StatusOK {
		if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
			s.Fatal(err)
		}
	}
	return answer.StatusCode
}

// admission is the newest admission of the repository.
func (s *server) admission(repository string) webhook.Admission {
	s.Helper()
	var list struct{ Admissions []webhook.Admission }
	if status := s.get("/api/v1/admissions?repository="+repository, &list); status != http.StatusOK || len(list.Admissions) == 0 {
		s.Fatalf("admissions of %s: %d, %+v", repository, status, list)
	}
	return list.Admissions[0]
}

// await waits for the end of the repository's newest admission.
func (s *server) await(repository string, limit time.Duration) webhook.Admission {
	s.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		a := s.admission(repository)
		if a.State.Final() {
			return a
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s: no end within %v: %+v", repository, limit, a)
		}
	}
}

// awaitOn waits for the end of a repository's newest admission, with credentials.
func (s *server) awaitOn(repository, user string, limit time.Duration) webhook.Admission {
	s.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		var list struct{ Admissions []webhook.Admission }
		if status := s.getAs(user, "/api/v1/admissions?repository="+repository, &list); status != http.StatusOK || len(list.Admissions) == 0 {
			s.Fatalf("admissions of %s: %d, %+v", repository, status, list)
		}
		if a := list.Admissions[0]; a.State.Final() {
			return a
		} else if time.Now().After(deadline) {
			s.Fatalf("%s: no end within %v: %+v", repository, limit, a)
		}
	}
}

// settle waits for the end of the only admission.
func (s *server) settle(limit time.Duration) webhook.Admission {
	s.Helper()
	var list struct{ Admissions []webhook.Admission }
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if status := s.get("/api/v1/admissions", &list); status != http.StatusOK {
			s.Fatalf("admissions: %d", status)
		}
		if len(list.Admissions) == 1 && list.Admissions[0].State.Final() {
			return list.Admissions[0]
		}
	}
	s.Fatalf("no end within %v: %+v", limit, list.Admissions)
	return webhook.Admission{}
}

// follow reads the admission's events until found says that it was waiting for this one. Fails where the stream ends before.
func (s *server) follow(id string, found func(event string, data []byte) bool) {
	s.Helper()
	resp, err := http.Get("http://" + s.address + "/api/v1/admissions/" + id + "/events")
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	event := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		switch key, value, _ := strings.Cut(lines.Text(), ": "); key {
		case "event":
			event = value
		case "data":
			if found(event, []byte(value)) {
				return
			}
		}
	}
	s.Fatalf("the events of %s ended: %+v", id, s.admission(""))
}
