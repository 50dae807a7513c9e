package testprocess

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
)

// Get reads a page into a *string, or as JSON into what else there is, if anything, and returns the status.
func Get(t *testing.T, url string, into any) int {
	t.Helper()
	r, err := http.Get(url) //nolint:gosec,noctx // of a server of the test
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, ok := into.(*string); ok {
		*text = string(data)
	} else if into != nil {
		if err := json.Unmarshal(data, into); err != nil {
			t.Fatalf("%s: %v\n%s", url, err, data)
		}
	}
	return r.StatusCode
}
