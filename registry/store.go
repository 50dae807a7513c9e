package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
)

// gracePeriod is how long content that no manifest refers to survives: the longest time between the upload of a
// package's first blob and of its manifest, and the longest pause in an upload.
const gracePeriod = 24 * time.Hour

// store is an embedded olareg registry. On disk each repository is an OCI image layout at root/<repository>: blobs/,
// index.json and oci-layout. Blobs are read and added on disk; manifests, tags and referrers go through olareg's
// handler, which keeps the index in memory.
type store struct {
	root     string
	log      *slog.Logger
	srv      *olareg.Server
	creating keyedMutex // by repository
}

func openStore(root string, limits Limits, log *slog.Logger) (*store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if err := sweep(root); err != nil {
		return nil, err
	}
	yes, no := true, false
	return &store{root: root, log: log, srv: olareg.New(config.Config{
		Log: log,
		Storage: config.ConfigStorage{
			StoreType: config.StoreDir,
			RootDir:   root,
			// Quarantine knows its packages by digest only, so what has no tag must stay. An empty repository stays
			// too: olareg would otherwise remove folders while blobs are linked into them.
			GC: config.ConfigGC{GracePeriod: gracePeriod, Untagged: &no, EmptyRepo: &no},
		},
		API: config.ConfigAPI{
			DeleteEnabled: &yes, // the gateway decides where
			Manifest:      config.ConfigAPIManifest{Limit: limits.ManifestBytes},
			Blob:          config.ConfigAPIBlob{DeleteEnabled: &yes},
			Referrer:      config.ConfigAPIReferrer{Enabled: &yes},
		},
	})}, nil
}

// close ends unfinished uploads and collects garbage. What cannot be collected now, in a repository that a full disk kept from being made for example, is no
// reason to fail: nothing is lost by it, and the next start and the next close try again.
func (s *store) close() {
	if err := s.srv.Close(); err != nil {
		s.log.Warn("garbage is left where a store was closed", "folder", s.root, "cause", err)
	}
}

// sweep removes what a crash left behind, unfinished uploads and temporary files, and reports damaged indexes.
func sweep(root string) error {
	dir, err := os.OpenRoot(root) // nothing is removed outside, whatever links the folder holds
	if err != nil {
		return err
	}
	defer dir.Close()
	return fs.WalkDir(dir.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && name == uploadsFolder:
			if err := dir.RemoveAll(path); err != nil {
				return err
			}
			return fs.SkipDir
		case !d.IsDir() && (strings.HasPrefix(name, "index.json.") || strings.HasPrefix(name, temporary)):
			return dir.Remove(path)
		case !d.IsDir() && name == "index.json":
			path = filepath.Join(root, path)
			if _, err := readIndex(path); err != nil {
				return fmt.Errorf("%s is damaged; restore it from a backup or remove the repository: %w", path, err)
			}
		}
		return nil
	})
}

func (s *store) dir(repository string) string {
	return filepath.Join(s.root, filepath.FromSlash(repository))
}

// has reports whether the repository is on disk. Of others olareg must not be asked: it would keep an entry in memory for
// each of them and fail to collect its garbage.
func (s *store) has(repository string) bool {
	_, err := os.Stat(filepath.Join(s.dir(repository), "index.json"))
	return err == nil
}

// repositories returns the names of all repositories with a manifest, sorted.
func (s *store) repositories() ([]string, error) {
	var names []string
	err := filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
			return nil
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "blobs" || d.Name() == uploadsFolder):
			return fs.SkipDir
		case d.IsDir() || d.Name() != "index.json":
			return nil
		}
		index, err := readIndex(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.root, filepath.Dir(path))
		if err == nil && len(index.Manifests) > 0 {
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	sort.Strings(names)
	return names, err
}

// reply is an answer of olareg to a call from inside.
type reply struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (r *reply) Header() http.Header { return r.header }

func (r *reply) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *reply) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

// call makes a request to olareg's handler.
func (s *store) call(ctx context.Context, method, path, contentType string, body []byte) (*reply, error) {
	r, err := http.NewRequestWithContext(ctx, method, path, io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return nil, err
	}
	r.ContentLength = int64(len(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := &reply{header: http.Header{}}
	s.srv.ServeHTTP(w, r)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return w, nil
}

// says reports whether a text is in the answer.
func (r *reply) says(text string) bool { return bytes.Contains(r.body.Bytes(), []byte(text)) }

func (r *reply) unexpected(what string) error {
	return fmt.Errorf("%s: the store answered %d: %s", what, r.status, bytes.TrimSpace(r.body.Bytes()))
}

// create makes sure that the repository exists, by uploading the empty JSON object. One request at a time does so, because
// olareg v0.2.2 marks a repository as existing without a lock.
func (s *store) create(ctx context.Context, repository string) error {
	defer s.creating.lock(repository)()
	if s.has(repository) {
		return nil
	}
	empty := []byte("{}")
	path := "/v2/" + repository + "/blobs/uploads/?digest=" + digest.FromBytes(empty).String()
	r, err := s.call(ctx, http.MethodPost, path, "application/octet-stream", empty)
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return r.unexpected("creating repository " + repository)
	}
	return nil
}

// manifest returns a manifest by tag or digest and its media type, or ErrNotFound.
func (s *store) manifest(ctx context.Context, repository, reference string) (raw []byte, mediaType string, err error) {
	if !s.has(repository) {
		return nil, "", ErrNotFound
	}
	r, err := s.call(ctx, http.MethodGet, "/v2/"+repository+"/manifests/"+reference, "", nil)
	switch {
	case err != nil:
		return nil, "", err
	case r.status == http.StatusNotFound:
		return nil, "", ErrNotFound
	case r.status != http.StatusOK:
		return nil, "", r.unexpected("reading a manifest")
	}
	return r.body.Bytes(), r.header.Get("Content-Type"), nil
}

// hasManifest reports whether a tag or digest names a manifest.
func (s *store) hasManifest(ctx context.Context, repository, reference string) (bool, error) {
	if !s.has(repository) {
		return false, nil
	}
	r, err := s.call(ctx, http.MethodHead, "/v2/"+repository+"/manifests/"+reference, "", nil)
	if err != nil {
		return false, err
	}
	switch r.status {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, r.unexpected("looking for a manifest")
}

// putManifest stores a manifest under a tag or its digest, durably.
func (s *store) putManifest(ctx context.Context, repository, reference, mediaType string, raw []byte) error {
	r, err := s.call(ctx, http.MethodPut, "/v2/"+repository+"/manifests/"+reference, mediaType, raw)
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return r.unexpected("storing a manifest")
	}
	d, err := digest.Parse(r.header.Get("Docker-Content-Digest"))
	if err != nil {
		return err
	}
	if err := syncFile(s.blob(repository, d)); err != nil {
		return err
	}
	return s.syncIndex(repository)
}

// deleteManifest removes a manifest by digest. Its blobs go when the grace period ends.
func (s *store) deleteManifest(ctx context.Context, repository string, d digest.Digest) error {
	r, err := s.call(ctx, http.MethodDelete, "/v2/"+repository+"/manifests/"+d.String(), "", nil)
	if err != nil {
		return err
	}
	if r.status != http.StatusAccepted && r.status != http.StatusNotFound {
		return r.unexpected("removing a manifest")
	}
	return s.syncIndex(repository)
}
