package registry

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The embedded store as a backend.
var _ backend = (*store)(nil)

// forward lets olareg answer the request.
func (s *store) forward(w http.ResponseWriter, r *http.Request, rt route, query url.Values) error {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case rt.kind == base:
	case rt.kind == uploads && rt.reference == "" && r.Method == http.MethodPost, rt.kind == manifests && r.Method == http.MethodPut:
		if from := query.Get("from"); from != "" && (!validName(from) || !s.has(from)) {
			query.Del("from") // the mount becomes an upload
		}
		if err := s.create(r.Context(), rt.repository); err != nil {
			return err
		}
	case s.has(rt.repository):
	case rt.kind == referrers && read:
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		return writeJSON(w, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{},
		})
	default:
		return refuse(http.StatusNotFound, codeNameUnknown, "repository %s is not known", rt.repository)
	}
	r = r.Clone(r.Context())
	r.URL = &url.URL{Path: rt.path(), RawQuery: query.Encode()}
	s.srv.ServeHTTP(w, r)
	return nil
}

func (s *store) read(w http.ResponseWriter, r *http.Request, rt route, absent func() error) error {
	there := false
	if rt.kind == blobs {
		_, there = s.blobSize(rt.repository, rt.digest)
	} else {
		var err error
		if there, err = s.hasManifest(r.Context(), rt.repository, rt.reference); err != nil {
			return err
		}
	}
	if !there {
		return absent()
	}
	return s.forward(w, r, rt, nil)
}

func (s *store) referrers(w http.ResponseWriter, r *http.Request, rt route) error {
	return s.forward(w, r, rt, r.URL.Query())
}

func (s *store) tags(w http.ResponseWriter, r *http.Request, rt route, n int) error {
	if !s.has(rt.repository) {
		return refuse(http.StatusNotFound, codeNameUnknown, "repository %s is not known", rt.repository)
	}
	if n == 0 { // olareg v0.2.2 panics
		return writeJSON(w, map[string]any{"name": rt.repository, "tags": []string{}})
	}
	return s.forward(w, r, rt, r.URL.Query())
}

// catalog pages as Docker's registry does: n names after the name last.
func (s *store) catalog(w http.ResponseWriter, r *http.Request, n int, visible func(string) bool) error {
	all, err := s.repositories()
	if err != nil {
		return err
	}
	names := []string{} // [] in JSON, not null
	for _, name := range all {
		if visible == nil || visible(name) {
			names = append(names, name)
		}
	}
	last := r.URL.Query().Get("last")
	names = names[sort.Search(len(names), func(i int) bool { return names[i] > last }):]
	if n >= 0 && n < len(names) {
		names = names[:n]
		if n > 0 {
			next := url.Values{"n": {strconv.Itoa(n)}, "last": {names[n-1]}}
			w.Header().Set("Link", "</v2/_catalog?"+next.Encode()+`>; rel="next"`)
		}
	}
	return writeJSON(w, map[string]any{"repositories": names})
}

func (s *store) findBlob(_ context.Context, repository string, d digest.Digest) (int64, bool, error) {
	size, ok := s.blobSize(repository, d)
	return size, ok, nil
}

func (s *store) giveBlob(ctx context.Context, repository string, d digest.Digest, to *store, toRepository string) error {
	return to.linkBlob(ctx, toRepository, d, s, repository)
}

func (s *store) takeBlob(ctx context.Context, repository string, d digest.Digest, from *store, fromRepository string) error {
	return s.linkBlob(ctx, repository, d, from, fromRepository)
}

func (s *store) addFile(ctx context.Context, repository, path string) (ocispec.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	d, n, err := s.addBlob(ctx, repository, f, "")
	return ocispec.Descriptor{Digest: d, Size: n}, err
}

func (s *store) addBytes(ctx context.Context, repository string, content []byte, d digest.Digest) error {
	_, _, err := s.addBlob(ctx, repository, bytes.NewReader(content), d)
	return err
}

func (s *store) check(context.Context) error {
	_, err := os.Stat(s.root)
	return err
}
