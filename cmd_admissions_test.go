package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestShowSaysWhatHappens: the words of show for states that mean more than their name.
func TestShowSaysWhatHappens(t *testing.T) {
	for record, want := range map[string]string{
		`{"id":"a","state":"sanitizing","waits_for_worker":true}`:                               "state        sanitizing (waits for a worker)\n",
		`{"id":"a","state":"sanitizing"}`:                                                       "state        sanitizing\n",
		`{"id":"a","state":"denied","tags":[{"name":"v1","pushed_at":"2026-01-02T03:04:05Z"}]}`: "tag          v1, pushed 2026-01-02T03:04:05Z, stays what it was\n",
		`{"id":"a","state":"held","tags":[{"name":"v1","pushed_at":"2026-01-02T03:04:05Z"}]}`:   "tag          v1, pushed 2026-01-02T03:04:05Z, waits\n",
	} {
		var out strings.Builder
		if err := printAdmission(&out, json.RawMessage(record), false); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", record, err, out.String())
		}
	}
}
