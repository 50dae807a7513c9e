package registry

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// checkMount refuses a request for an upload of which the registry behind this one could read another mount than this one does, which decides by it who may have the
// blob. CNCF distribution looks into the body of a form, before the query. A mount from whatever repository has the blob, for which nobody can say that the client
// may read it, becomes an ordinary upload.
func (g *Gateway) checkMount(r *http.Request) (*http.Request, error) {
	for _, mediaType := range r.Header.Values("Content-Type") {
		if t := strings.ToLower(mediaType); strings.Contains(t, "application/x-www-form-urlencoded") || strings.Contains(t, "multipart/") {
			return r, refuse(http.StatusUnsupportedMediaType, codeUnsupported, "an upload is no form: send it as application/octet-stream, not as %.200q", mediaType)
		}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return r, refuse(http.StatusBadRequest, codeUnsupported, "the query cannot be read: escape what it is made of")
	}
	if len(query["mount"]) > 1 || len(query["from"]) > 1 {
		return r, refuse(http.StatusBadRequest, codeUnsupported, "one blob is mounted at a time, from one repository: name mount and from once")
	}
	from := query.Get("from")
	if from != "" && !validName(from) {
		return r, refuse(http.StatusBadRequest, codeNameInvalid, "%.300q, to mount from, is not a valid repository name", from)
	}
	if from == "" && query.Has("mount") && g.authorize != nil {
		query.Del("mount")
		r = r.Clone(r.Context())
		r.URL.RawQuery = query.Encode()
	}
	return r, nil
}

// upload lets quarantine take an upload. A mount is done from released content only: else whoever guesses a digest could
// have another repository's quarantined model sanitized and released in his own. Any other mount becomes an upload, as
// the specification has it, section "Mounting a blob from another repository".
func (g *Gateway) upload(w http.ResponseWriter, r *http.Request, rt route) error {
	query := r.URL.Query()
	mount, from := query.Get("mount"), query.Get("from")
	query.Del("mount")
	query.Del("from")
	if d, err := parseDigest(mount); r.Method == http.MethodPost && err == nil && validName(from) {
		mounted, err := g.mount(r, rt.repository, d, from)
		if err != nil {
			return err
		}
		if mounted {
			w.Header().Set("Location", route{kind: blobs, repository: rt.repository, reference: d.String()}.path())
			w.Header().Set("Docker-Content-Digest", d.String())
			w.WriteHeader(http.StatusCreated)
			return nil
		}
	}
	r.Body = &writtenBody{ReadCloser: r.Body, dir: filepath.Join(g.quarantine.dir(rt.repository), uploadsFolder), write: writeBack}
	return g.takeUpload(w, r, rt, query, g.quarantine)
}

// mount makes a released blob part of a quarantined repository, and the request's identity its holder, and reports whether it did. Who may read the blob was decided
// with the request, but where the upstream decides that, which gives the gateway more than it gives a client.
func (g *Gateway) mount(r *http.Request, repository string, d digest.Digest, from string) (bool, error) {
	ctx := r.Context()
	if g.upstream != nil && g.upstream.passThrough {
		if may, err := g.upstream.mayRead(r, from, d); err != nil || !may {
			return false, err
		}
	}
	if _, ok, err := g.released.findBlob(ctx, from, d); err != nil || !ok {
		return false, err
	}
	if err := g.quarantine.create(ctx, repository); err != nil {
		return false, err
	}
	if err := g.released.giveBlob(ctx, from, d, g.quarantine, repository); err != nil {
		return false, err
	}
	return true, g.holders.add(repository, Identity(ctx), d)
}
