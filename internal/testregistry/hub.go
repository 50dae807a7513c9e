package testregistry

import (
	"crypto/sha1" //nolint:gosec // how Git names blobs
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Hub is an HTTP server on loopback with the file API that the Hugging Face Hub documents: the commit of a branch, the files of a commit in pages,
// and their content, that of large files by a redirect to another host. It is not the Hub itself, which tests cannot reach: what the Hub does
// otherwise than it documents is not tested with it.
type Hub struct {
	URL   string
	Token string // that every request has to show; "" asks for none

	dir string // DIR/OWNER/NAME/COMMIT/files..., and DIR/OWNER/NAME/BRANCH with a commit in it

	mu    sync.Mutex
	asked []string // paths
}

const hubPage = 2 // entries of a page of the list of files

// StartHub serves no repositories until the test ends.
func StartHub(t *testing.T) *Hub {
	t.Helper()
	h := &Hub{dir: t.TempDir()}
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the store of large files is shown the Hub's token")
		}
		if r.URL.Query().Get("signature") == "" {
			http.Error(w, "not signed", http.StatusForbidden)
			return
		}
		http.StripPrefix("/store", http.FileServer(http.Dir(h.dir))).ServeHTTP(w, r)
	}))
	t.Cleanup(store.Close)
	api, content := http.NewServeMux(), http.NewServeMux()
	api.HandleFunc("GET /api/models/{owner}/{name}/revision/{branch}", h.revision)
	api.HandleFunc("GET /api/models/{owner}/{name}/tree/{commit}", h.tree)
	content.HandleFunc("GET /{owner}/{name}/resolve/{commit}/{file...}", func(w http.ResponseWriter, r *http.Request) {
		file := path.Join(r.PathValue("owner"), r.PathValue("name"), r.PathValue("commit"), r.PathValue("file"))
		if large(file) {
			w.Header().Set("X-Repo-Commit", r.PathValue("commit"))
			http.Redirect(w, r, store.URL+"/store/"+file+"?signature=x", http.StatusFound) //nolint:gosec // to the store, whatever the file
			return
		}
		http.ServeFileFS(w, r, os.DirFS(h.dir), file)
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked = append(h.asked, r.URL.Path)
		h.mu.Unlock()
		if h.Token != "" && r.Header.Get("Authorization") != "Bearer "+h.Token {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"Invalid username or password."}`))
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			api.ServeHTTP(w, r)
			return
		}
		content.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.URL = server.URL
	return h
}

// Push makes a commit of the files and points a branch of the repository OWNER/NAME at it.
func (h *Hub) Push(t *testing.T, model, branch string, files map[string][]byte) (commit string) {
	t.Helper()
	sum := sha1.New() //nolint:gosec // as above
	if err := json.NewEncoder(sum).Encode(files); err != nil {
		t.Fatal(err)
	}
	commit = hex.EncodeToString(sum.Sum(nil))
	repository := filepath.Join(h.dir, filepath.FromSlash(model))
	write := func(name string, content []byte) {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		write(filepath.Join(repository, commit, filepath.FromSlash(name)), content)
	}
	write(filepath.Join(repository, branch), []byte(commit))
	return commit
}

// Asked are the paths that were asked for.
func (h *Hub) Asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.asked...)
}

func (h *Hub) revision(w http.ResponseWriter, r *http.Request) {
	commit, err := fs.ReadFile(os.DirFS(h.dir), path.Join(r.PathValue("owner"), r.PathValue("name"), r.PathValue("branch")))
	if err != nil {
		notThere(w)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"id": r.PathValue("owner") + "/" + r.PathValue("name"), "sha": string(commit)})
}

type hubEntry struct {
	Type string  `json:"type"`
	OID  string  `json:"oid"`
	Size int     `json:"size"`
	Path string  `json:"path"`
	LFS  *hubLFS `json:"lfs,omitempty"`
}

type hubLFS struct {
	OID         string `json:"oid"`
	Size        int    `json:"size"`
	PointerSize int    `json:"pointerSize"`
}

func (h *Hub) tree(w http.ResponseWriter, r *http.Request) {
	var all []hubEntry
	files, root := os.DirFS(h.dir), path.Join(r.PathValue("owner"), r.PathValue("name"), r.PathValue("commit"))
	err := fs.WalkDir(files, root, func(file string, e fs.DirEntry, err error) error {
		if err != nil || file == root {
			return err
		}
		name := strings.TrimPrefix(file, root+"/")
		if e.IsDir() {
			all = append(all, hubEntry{Type: "directory", OID: strings.Repeat("0", 40), Path: name})
			return nil
		}
		content, err := fs.ReadFile(files, file)
		entry := hubEntry{Type: "file", OID: blobName(content), Size: len(content), Path: name}
		if large(file) {
			sum := sha256.Sum256(content)
			entry.LFS = &hubLFS{hex.EncodeToString(sum[:]), len(content), 130}
			entry.OID = blobName(sum[:]) // of the pointer file
		}
		all = append(all, entry)
		return err
	})
	if err != nil {
		notThere(w)
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	page := all[min(from, len(all)):min(from+hubPage, len(all))]
	if from+hubPage < len(all) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, r.URL.Path, from+hubPage))
	}
	_ = json.NewEncoder(w).Encode(page)
}

func notThere(w http.ResponseWriter) {
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write([]byte(`{"error":"Repository not found"}`))
}

// large reports whether a file is kept beside the Git repository, as the Hub's .gitattributes say for models.
func large(name string) bool {
	switch path.Ext(name) {
	case ".onnx", ".bin", ".onnx_data", ".safetensors":
		return true
	}
	return false
}

func blobName(content []byte) string {
	sum := sha1.New() //nolint:gosec // as above
	fmt.Fprintf(sum, "blob %d\x00", len(content))
	sum.Write(content)
	return hex.EncodeToString(sum.Sum(nil))
}
