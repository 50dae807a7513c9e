package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func TestVisible(t *testing.T) {
	const text = "größer\t模型\n\x1b[2J\r\u009b1m\u202eevil\u200b \U000e0041 \x7f\xff"
	var out bytes.Buffer
	v := &visible{w: &out}
	for i := range len(text) { // characters come in pieces
		if n, err := v.Write([]byte(text[i : i+1])); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	want := "größer\t模型\n" + `\u001b[2J\u000d\u009b1m\u202eevil\u200b \udb40\udc41 \u007f` + "\ufffd"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
	out.Reset()
	names := map[string]string{"name": "a\x1b\u202e\U000e0041.onnx"}
	var back map[string]string
	if err := printJSON(&visible{w: &out}, names); err != nil || json.Unmarshal(out.Bytes(), &back) != nil || back["name"] != names["name"] || strings.Contains(out.String(), "\u202e") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestNothingForTheTerminal: what a server or a registry says of names that pushers chose is shown, and not obeyed.
func TestNothingForTheTerminal(t *testing.T) {
	dir := t.TempDir()
	if err := signModel(dir); err != nil {
		t.Fatal(err)
	}
	const evil = `\u001b[2Kverified\u202e`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead { // the manifest is there, until it is asked for
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Length", "2")
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("a", 64))
			return
		}
		if strings.HasPrefix(r.URL.Path, "/v2/") || strings.HasSuffix(r.URL.Path, "00000000") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"errors": [{"code": "UNKNOWN", "message": "%s"}]}`, evil)
			return
		}
		fmt.Fprintf(w, `{"id": "0199c2f4", "state": "held", "message": "%[1]s", "source": {"models": [{"name": "%[1]s"}]}}`, evil)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, args := range [][]string{
		{"admissions", "show", "0199c2f4", "--server", server.URL},
		{"admissions", "show", "00000000", "--server", server.URL},
		{"verify", host + "/models/a:v1", "--key", filepath.Join(dir, "signer.pub")},
	} {
		var stdout, stderr bytes.Buffer
		run(args, &stdout, &stderr)
		for _, out := range []string{stdout.String(), stderr.String()} {
			if strings.ContainsAny(out, "\x1b\u202e") {
				t.Errorf("%q: %q", args, out)
			}
		}
		if !strings.Contains(stdout.String()+stderr.String(), evil) {
			t.Errorf("%q: %s%s", args, stdout.String(), stderr.String())
		}
	}
}
