package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestVerifyByTLSOnLoopback: a registry on this machine may speak TLS, and --plain-http=false says so. This one's certificate nobody knows.
func TestVerifyByTLSOnLoopback(t *testing.T) {
	dir := t.TempDir()
	if err := signModel(dir); err != nil {
		t.Fatal(err)
	}
	registry := httptest.NewTLSServer(http.NotFoundHandler())
	defer registry.Close()
	reference := strings.TrimPrefix(registry.URL, "https://") + "/models/a:v1"
	out, err := command(t, "verify", reference, "--key", filepath.Join(dir, "signer.pub"), "--plain-http=false")
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v\n%s", err, out)
	}
}
