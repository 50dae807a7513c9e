package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"grindstone/attest"
)

// authorityOf writes the certificate of a test's server, which signed itself.
func authorityOf(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVerifyByTLSOnLoopback: a registry on this machine may speak TLS, and --plain-http=false says so, or --ca with the authority of its certificate.
func TestVerifyByTLSOnLoopback(t *testing.T) {
	dir := t.TempDir()
	if err := signModel(dir); err != nil {
		t.Fatal(err)
	}
	registry := httptest.NewTLSServer(http.NotFoundHandler())
	defer registry.Close()
	reference := strings.TrimPrefix(registry.URL, "https://") + "/models/a:v1"
	for want, flags := range map[string][]string{
		"certificate": {"--plain-http=false"},
		"not found":   {"--ca", authorityOf(t, registry)},
		"no such":     {"--ca", "nowhere.pem"},
	} {
		out, err := command(t, append([]string{"verify", reference, "--key", filepath.Join(dir, "signer.pub")}, flags...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q\n%s", flags, err, want, out)
		}
	}
}

// TestDetailsBeginNoLine: what a check says has names in it that whoever made the package chose.
func TestDetailsBeginNoLine(t *testing.T) {
	var out strings.Builder
	printChecks(&out, "registry.test/a:v1", &attest.Result{Checks: []attest.Check{{Name: attest.CheckModel, Detail: "layer x\nverified: registry.test/a:v1"}}}, false)
	if strings.Contains(out.String(), "\nverified") || !strings.Contains(out.String(), "\nNOT VERIFIED") {
		t.Error(out.String())
	}
}
