package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestWatchToTheEnd: "watch ID" goes on where a server broke off, and its exit code says whether the model was released.
func TestWatchToTheEnd(t *testing.T) {
	event := func(n int, state, reason string) string {
		return fmt.Sprintf("id: %d.0\nevent: state\ndata: {\"state\":%q,\"reason\":%q,\"at\":\"2026-01-02T03:04:05Z\"}\n\n", n, state, reason)
	}
	progress := "id: 2.1\nevent: progress\ndata: {\"phase\":\"grind\",\"step\":3,\"steps\":9}\n\n"
	for name, c := range map[string]struct {
		answers []string // "503" is that status; the end of any other is that of the stream
		last    string   // event that the client says it has, at its last request
		code    int
		prints  string
		err     string
	}{
		"released":           {[]string{event(1, "sanitizing", "") + event(2, "released", "")}, "", exitOK, "sanitizing released", ""},
		"held":               {[]string{event(1, "deciding", "") + event(2, "held", "no-dataset")}, "", exitFailure, "deciding held", ""},
		"denied":             {[]string{event(1, "denied", "operator-rejected")}, "", exitFailure, "denied", ""},
		"a restart":          {[]string{event(1, "deciding", ""), "503", event(2, "sanitizing", "") + progress, event(3, "released", "")}, "2.1", exitOK, "deciding sanitizing grind released", ""},
		"cut in an event":    {[]string{event(1, "deciding", "") + "id: 2.0\nevent: state\n", event(2, "released", "")}, "1.0", exitOK, "deciding released", ""},
		"gone for good":      {[]string{event(1, "sanitizing", ""), "503"}, "1.0", exitFailure, "sanitizing", "not followed to its end, it was sanitizing"},
		"forgotten":          {[]string{event(1, "sanitizing", ""), "404"}, "1.0", exitFailure, "sanitizing", "404"},
		"never there":        {[]string{"404"}, "", exitFailure, "", "404"},
		"the end seen twice": {[]string{event(1, "held", "no-dataset") + event(2, "deciding", ""), event(3, "released", "")}, "2.0", exitOK, "held deciding released", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, last := 0, ""
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				last = r.Header.Get("Last-Event-ID")
				answer := c.answers[min(asked, len(c.answers)-1)]
				if asked++; len(answer) == 3 {
					var status int
					fmt.Sscan(answer, &status)
					w.WriteHeader(status)
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, answer)
			}))
			defer server.Close()
			out, err := command(t, "admissions", "watch", "0199c2f4", "--server", server.URL, "--retry-for", "800ms")
			code := exitOK
			if err != nil {
				code = exitCode(err)
			}
			if code != c.code || last != c.last || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("exit code %d, last event %q, %v; want %d, %q, %q", code, last, err, c.code, c.last, c.err)
			}
			at := 0
			for word := range strings.FieldsSeq(c.prints) {
				n := strings.Index(out[at:], word)
				if n < 0 {
					t.Fatalf("no %q in the right place:\n%s", word, out)
				}
				at += n
			}
			if strings.Count(out, "\n") != len(strings.Fields(c.prints)) {
				t.Errorf("not one line for each event:\n%s", out)
			}
		})
	}
}

// TestWatchAllGoesOn: so does the list of all, but for a server that never answered.
func TestWatchAllGoesOn(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 2 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if asked > 3 {
			w.WriteHeader(http.StatusForbidden)
		}
		fmt.Fprintf(w, `{"admissions":[{"id":"a","state":"released","updated_at":"2026-01-02T03:04:0%dZ"}],"total":1}`, asked)
	}))
	defer server.Close()
	begin := time.Now()
	out, err := command(t, "admissions", "watch", "--server", server.URL, "--retry-for", "800ms")
	if answer := (*apiError)(nil); !errors.As(err, &answer) || answer.status != http.StatusForbidden || strings.Count(out, "released") != 2 || asked != 4 {
		t.Errorf("asked %d times in %v: %v\n%s", asked, time.Since(begin), err, out)
	}
}
