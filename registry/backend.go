package registry

import (
	"context"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// backend holds what was released, and every repository that is not intercepted. The embedded [store] is one, an [upstream]
// registry the other. Nothing gets into an intercepted repository of a backend but by Gateway.Release, Attach and Tag.
type backend interface {
	// forward answers a request by the route and query given instead of the request's own.
	forward(w http.ResponseWriter, r *http.Request, rt route, query url.Values) error
	// read answers a GET or HEAD of a manifest or blob. absent answers where there is none.
	read(w http.ResponseWriter, r *http.Request, rt route, absent func() error) error
	// referrers answers a list of referrers; an empty one where there are none.
	referrers(w http.ResponseWriter, r *http.Request, rt route) error
	// tags answers a tag list of n entries, -1 for the backend's own page size.
	tags(w http.ResponseWriter, r *http.Request, rt route, n int) error
	// catalog answers with the repositories that are visible, n of them, -1 for the backend's own page size.
	// visible is nil if all are.
	catalog(w http.ResponseWriter, r *http.Request, n int, visible func(repository string) bool) error

	// manifest returns a manifest by tag or digest and its media type, or ErrNotFound.
	manifest(ctx context.Context, repository, reference string) (raw []byte, mediaType string, err error)
	// findBlob returns the size of a blob in bytes; false if there is no such blob.
	findBlob(ctx context.Context, repository string, d digest.Digest) (int64, bool, error)
	// create makes sure that a repository can be written to.
	create(ctx context.Context, repository string) error
	// giveBlob makes a blob part of a quarantined repository that exists.
	giveBlob(ctx context.Context, repository string, d digest.Digest, to *store, toRepository string) error
	// takeBlob makes a quarantined blob part of a repository.
	takeBlob(ctx context.Context, repository string, d digest.Digest, from *store, fromRepository string) error
	// addFile copies a local file into a repository and returns its digest and size.
	addFile(ctx context.Context, repository, path string) (ocispec.Descriptor, error)
	// addBytes adds a small blob. Other content than d's is refused with ErrDigest.
	addBytes(ctx context.Context, repository string, content []byte, d digest.Digest) error
	// putManifest stores a manifest under a tag or its digest, durably.
	putManifest(ctx context.Context, repository, reference, mediaType string, raw []byte) error
	// check reports why the backend cannot be used now.
	check(ctx context.Context) error
	close()
}
