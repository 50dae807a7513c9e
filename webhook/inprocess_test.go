package webhook

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestInProcessPanic: a handler that panics on what somebody else pushed breaks its answer off, and not the server.
func TestInProcessPanic(t *testing.T) {
	for begun, want := range map[bool]int{false: http.StatusInternalServerError, true: http.StatusOK} {
		client := http.Client{Transport: inProcess{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if begun {
				_, _ = io.WriteString(w, "half")
			}
			panic("a package like no other")
		})}}
		r, err := client.Get("http://grindstone.internal/")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != want || err == nil || !strings.Contains(err.Error(), "like no other") {
			t.Errorf("begun %v: %d %q, %v", begun, r.StatusCode, text, err)
		}
	}
}
