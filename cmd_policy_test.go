package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"grindstone/policy"
)

// TestPolicyOfAnAdmission: a policy is asked about what a server has, as that asks its own.
func TestPolicyOfAnAdmission(t *testing.T) {
	host := serveHere(t)
	digest := pushModel(t, host, "vision/signs", "v1")
	at := []string{"--server", "http://ada:the%20secret@" + host}
	out, err := command(t, append([]string{"admissions", "list", "--json"}, at...)...)
	if err != nil {
		t.Fatal(err)
	}
	var list admissionList
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Admissions) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	eval := append([]string{"policy", "eval", "--admission", list.Admissions[0].ID}, at...)
	var d policy.AdmissionDecision
	if out, err = command(t, append(eval, "--dataset", "signs")...); err != nil || json.Unmarshal([]byte(out), &d) != nil || d.Action != policy.Sanitize || d.Dataset != "signs" {
		t.Errorf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	house := `package grindstone.admission
decision := {"action": "deny", "reasons": [concat(" ", [input.identity, input.repository, input.tag, input.digest, input.annotations.team, concat(",", input.datasets)])]}`
	for name, text := range map[string]string{"a.rego": house, "r.rego": "package grindstone.release\ndecision := {\"release\": true}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := writeConfig(t, t.TempDir(), "policy: {dir: "+dir+"}\ndatasets: {b: nowhere, a: nowhere}\n")
	want := "ada vision/signs v1 " + digest + " signs a,b"
	if out, err = command(t, append(eval, "--config", config)...); err != nil || !strings.Contains(out, want) {
		t.Errorf("%v, want %q\n%s", err, want, out)
	}
	for want, args := range map[string][]string{
		"--dataset NAME":    eval,
		"has no report yet": append(eval, "--release", "--dataset", "signs"),
		"404":               append(append([]string{"policy", "eval", "--admission", "00000000"}, at...), "--dataset", "signs"),
	} {
		if out, err := command(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q\n%s", args, err, want, out)
		}
	}
}

// TestPolicyOfASanitizedModel: the release question is asked about every model of the package.
func TestPolicyOfASanitizedModel(t *testing.T) {
	report := func(hash string, after float64) string {
		rate := `{"value": %g, "low": 0.85, "count": 1000}`
		return fmt.Sprintf(`{"schema_version": "1.0", "method": "feature-grinding", "transformation": "permute", "secret_discarded": true, "source": {"sha256": %q},
			"sanitized": {"sha256": "dd"}, "dataset": {"digest": "sha256:ee", "classes": 10}, "before": {"cda": `+fmt.Sprintf(rate, 0.95)+`}, "after": {"cda": `+fmt.Sprintf(rate, after)+`},
			"phases": [{"name": "grind"}, {"name": "restore"}], "runtime": {"engine": "e", "version": "v", "provider": "p"},
			"started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:05:05Z"}`, hash)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"id": "0199c2f4", "source": {"repository": "m", "annotations_dropped": 3, "models": [{"name": "a.onnx", "digest": "sha256:bb"}, {"name": "b.onnx", "digest": "sha256:cc"}]},
			"decision": {"action": "sanitize", "method": "feature-grinding", "transformation": "permute", "dataset": "default"}, "report": %s,
			"further_models": [{"name": "b.onnx", "report": %s}]}`, report("bb", 0.94), report("cc", 0.5))
	}))
	defer server.Close()
	out, err := command(t, "policy", "eval", "--admission", "0199c2f4", "--release", "--server", server.URL)
	if err != nil || !strings.Contains(out, "the record lacks 3 annotations") {
		t.Fatalf("%v\n%s", err, out)
	}
	d := json.NewDecoder(strings.NewReader(out[strings.Index(out, "{"):]))
	var first, second policy.ReleaseDecision
	if err := d.Decode(&first); err != nil || !first.Release || first.Claims[0].Comparator != "<=" {
		t.Errorf("%v\n%s", err, out)
	}
	if err := d.Decode(&second); err != nil || second.Release || d.More() {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(out, `"comparator": "<="`) {
		t.Errorf("the comparator is not to be read:\n%s", out)
	}
}
