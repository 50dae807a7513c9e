package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestServerOfAPrivateAuthority: with --ca the commands that ask a server take its certificate, and log in with the user and password in its URL.
func TestServerOfAPrivateAuthority(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ada" || password != "the secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"admissions":[],"total":0}`)
	}))
	defer server.Close()
	t.Setenv("GRINDSTONE_SERVER", strings.Replace(server.URL, "https://", "https://ada:the%20secret@", 1))
	if out, err := command(t, "admissions", "list", "--ca", authorityOf(t, server)); err != nil || !strings.Contains(out, "no admissions") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := command(t, "admissions", "list"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without --ca: %v", err)
	}
}

// TestHelpHidesThePassword: what the environment says of the server is no default that --help prints, nor is it in errors.
func TestHelpHidesThePassword(t *testing.T) {
	t.Setenv("GRINDSTONE_SERVER", "ada:hunter2@registry.test")
	for _, args := range [][]string{{"admissions", "list", "--help"}, {"gc", "--help"}, {"notifications", "--help"}} {
		if out, err := command(t, args...); err != nil || strings.Contains(out, "hunter2") || !strings.Contains(out, "GRINDSTONE_SERVER") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	if _, err := command(t, "gc"); err == nil || exitCode(err) != exitUsage || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no URL: %v", err)
	}
}
