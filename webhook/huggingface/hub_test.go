package huggingface

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"grindstone/internal/testregistry"
	"grindstone/webhook/remotefile"
)

func loopback(host string) bool { return host == "127.0.0.1" }

// TestHub reads a commit by the API that the Hub documents.
func TestHub(t *testing.T) {
	server := testregistry.StartHub(t)
	server.Token = "hf_token"
	hub := &Hub{URL: server.URL + "/", Token: server.Token, Hosts: loopback}
	files := map[string][]byte{"README.md": []byte("# Colours\n"), "onnx/model.onnx": []byte("a model"), "onnx/model.onnx_data": bytes.Repeat([]byte("w"), 100_000), "a b/#1?.txt": nil, "config.json": []byte("{}")}
	commit := server.Push(t, "some-user/some-repo", "main", files)
	if head, err := hub.Commit(t.Context(), "some-user/some-repo", "main"); head != commit || err != nil {
		t.Errorf("main is at %q, %v", head, err)
	}
	all, err := hub.Files(t.Context(), "some-user/some-repo", commit)
	if err != nil || len(all) != len(files) || all[0].Path != "README.md" || all[4].Path != "onnx/model.onnx_data" || all[4].Size != 100_000 || all[4].SHA256 == "" || all[4].Blob != "" || all[0].SHA256 != "" {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, f := range all {
		var got bytes.Buffer
		if err := hub.Download(t.Context(), "some-user/some-repo", commit, f, &got); err != nil || !bytes.Equal(got.Bytes(), files[f.Path]) {
			t.Errorf("%s: %d bytes, %v", f.Path, got.Len(), err)
		}
	}
	// Other content than is listed.
	for name, f := range map[string]File{
		"another hash": {Path: "onnx/model.onnx", Size: 7, SHA256: strings.Repeat("0", 64)}, "another blob": {Path: "config.json", Size: 2, Blob: all[0].Blob},
		"no hash": {Path: "config.json", Size: 2}, "longer": {Path: "README.md", Size: 5, Blob: all[0].Blob}, "shorter": {Path: "README.md", Size: 50, Blob: all[0].Blob},
	} {
		if err := hub.Download(t.Context(), "some-user/some-repo", commit, f, io.Discard); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := hub.Files(t.Context(), "some-user/some-repo", strings.Repeat("0", 40)); !errors.Is(err, remotefile.ErrNotFound) || !strings.Contains(err.Error(), "Repository not found") {
		t.Errorf("a commit that is not there: %v", err)
	}
	// Large files come from no host that is not configured, and nothing without the token.
	for _, hosts := range []func(string) bool{nil, func(string) bool { return false }} {
		closed := &Hub{URL: server.URL, Token: server.Token, Hosts: hosts}
		if err := closed.Download(t.Context(), "some-user/some-repo", commit, all[4], io.Discard); !errors.Is(err, remotefile.ErrUnsupported) || strings.Contains(err.Error(), "signature") {
			t.Errorf("another host: %v", err)
		}
		if err := closed.Download(t.Context(), "some-user/some-repo", commit, all[0], io.Discard); err != nil {
			t.Errorf("the Hub itself: %v", err)
		}
	}
	if _, err := (&Hub{URL: server.URL}).Files(t.Context(), "some-user/some-repo", commit); err == nil || errors.Is(err, remotefile.ErrNotFound) || !strings.Contains(err.Error(), "401: Invalid username") {
		t.Errorf("without a token: %v", err)
	}
}

// TestHostileHub asks servers that do not keep to the API.
func TestHostileHub(t *testing.T) {
	list := func(name, entries string) (string, http.HandlerFunc) {
		return name, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, entries) }
	}
	hostile := map[string]http.HandlerFunc{}
	for name, path := range map[string]string{"up": "../model.onnx", "up inside": "a/../../model.onnx", "absolute": "/etc/passwd", "a drive": "c:model.onnx", "backslashes": `..\\model.onnx`, "a line end": `a\nb`, "none": ""} {
		key, handler := list(name, `[{"type":"file","path":"`+path+`","size":1,"oid":"x"}]`)
		hostile[key] = handler
	}
	key, handler := list("a negative size", `[{"type":"file","path":"model.onnx","size":-1,"oid":"x"}]`)
	hostile[key] = handler
	hostile["too many files"] = func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "["+strings.Repeat(`{"type":"file","path":"f","size":1},`, maxFiles)+`{"type":"file","path":"f","size":1}]`)
	}
	hostile["pages for ever"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", `<http://evil.example/>; rel="next"`)
		fmt.Fprint(w, `[{"type":"file","path":"f","size":1}]`)
	}
	hostile["redirects for ever"] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }
	for target, name := range map[string]string{"http://169.254.169.254/latest": "a redirect to another host", "https://127.0.0.1.evil.example/": "a host that looks like it", "ftp://127.0.0.1/": "another scheme", "http://user@127.0.0.1/": "a login"} {
		hostile[name] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, http.StatusFound) }
	}
	for name, handler := range hostile {
		server := httptest.NewServer(handler)
		if got, err := (&Hub{URL: server.URL, Hosts: loopback}).Files(t.Context(), "a/m", "c"); !errors.Is(err, remotefile.ErrUnsupported) {
			t.Errorf("%s: %d files, %v", name, len(got), err)
		}
		server.Close()
	}
	for name, text := range map[string]string{"no JSON": "<html>", "no list": "{}", "cut off": `[{"type":"file"`, "too long": "[" + strings.Repeat(" ", maxAnswer) + "]"} {
		_, handler := list(name, text)
		server := httptest.NewServer(handler)
		if got, err := (&Hub{URL: server.URL}).Files(t.Context(), "a/m", "c"); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
		server.Close()
	}
}

// A Hub with https never sends to http.
func TestNoDowngrade(t *testing.T) {
	hub := &Hub{URL: "https://hub.example", Hosts: loopback, Token: "t"}
	for target, want := range map[string]bool{"https://127.0.0.1/f": true, "http://127.0.0.1/f": false, "https://hub.example/f": true, "http://hub.example/f": false} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{URL: u, Header: http.Header{"Authorization": {"Bearer t"}}}
		if err := hub.redirect(r, nil); (err == nil) != want || err == nil && (u.Host == "hub.example") != (r.Header.Get("Authorization") != "") {
			t.Errorf("%s: %v, %v", target, err, r.Header)
		}
	}
}

// A transfer ends with its context, and says why.
func TestDownloadEnds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	why := errors.New("for the test")
	ctx, cancel := context.WithCancelCause(t.Context())
	go cancel(why)
	if err := (&Hub{URL: server.URL}).Download(ctx, "a/m", "c", File{Path: "f", Size: 1}, io.Discard); err == nil {
		t.Error("a cancelled download ends well")
	}
}

func TestNextPage(t *testing.T) {
	for link, want := range map[string]string{
		`<https://huggingface.co/api/models/a/m/tree/c?recursive=true&cursor=abc%3D>; rel="next"`: "abc=", `<https://huggingface.co/?cursor=x>; rel="prev"`: "", "": "", "<": "", `<%zz>; rel="next"`: "",
	} {
		if got := nextPage([]string{link}).Get("cursor"); got != want {
			t.Errorf("%s: %q", link, got)
		}
	}
}
