package registry

import (
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// kind is an endpoint of the OCI distribution specification, section "Endpoints".
type kind int

const (
	base      kind = iota // /v2/
	catalog               // /v2/_catalog, which Docker's registry has and the specification lacks
	manifests             // /v2/<name>/manifests/<reference>
	blobs                 // /v2/<name>/blobs/<digest>
	uploads               // /v2/<name>/blobs/uploads/[<session>]
	referrers             // /v2/<name>/referrers/<digest>
	tags                  // /v2/<name>/tags/list
)

// route is a parsed request path.
type route struct {
	kind       kind
	repository string
	reference  string        // tag, digest or upload session
	digest     digest.Digest // the reference if it is a digest, else ""
}

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern     = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	sessionPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)
)

// reserved are the names that an OCI image layout has in a repository's folder.
var reserved = []string{"blobs", "index.json", "oci-layout"}

// validName reports whether a repository may have that name: the grammar of the specification, at most 255 bytes, and
// no part that collides with the layout on disk.
func validName(name string) bool {
	return len(name) <= 255 && namePattern.MatchString(name) && !slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
		return slices.Contains(reserved, part) || strings.HasPrefix(part, "index.json.")
	})
}

// parseRoute reads a request path. It accepts clean paths only, so that the gateway and the store behind it cannot
// understand one path differently.
func parseRoute(u *url.URL) (route, error) {
	p := u.Path
	if p == "/v2" || p == "/v2/" {
		return route{kind: base}, nil
	}
	if p == "/v2/_catalog" {
		return route{kind: catalog}, nil
	}
	p, ok := strings.CutPrefix(strings.TrimSuffix(p, "/"), "/v2/")
	if !ok {
		return route{}, refuse(http.StatusNotFound, codeUnsupported, "no such endpoint")
	}
	if p != path.Clean(p) || strings.HasPrefix(p, "/") || strings.HasPrefix(p, "..") {
		return route{}, refuse(http.StatusBadRequest, codeNameInvalid, "the path must not have empty, . or .. parts")
	}
	parts := strings.Split(p, "/")
	n := len(parts)
	part := func(i int) string { // counted from the end, from 1 on
		if i > n {
			return ""
		}
		return parts[n-i]
	}
	rt := route{reference: part(1)}
	nameEnd := n - 2
	switch {
	case part(2) == "manifests":
		rt.kind = manifests
	case part(2) == "referrers":
		rt.kind = referrers
	case part(2) == "tags" && part(1) == "list":
		rt.kind = tags
	case part(2) == "blobs" && part(1) == "uploads":
		rt.kind, rt.reference = uploads, ""
	case part(2) == "blobs":
		rt.kind = blobs
	case part(3) == "blobs" && part(2) == "uploads":
		rt.kind, nameEnd = uploads, n-3
	default:
		return route{}, refuse(http.StatusNotFound, codeUnsupported, "no such endpoint")
	}
	rt.repository = strings.Join(parts[:max(nameEnd, 0)], "/")
	if !validName(rt.repository) {
		return route{}, refuse(http.StatusBadRequest, codeNameInvalid, "%.300q is not a valid repository name", rt.repository)
	}
	return rt, rt.parseReference()
}

func (rt *route) parseReference() error {
	switch rt.kind {
	case uploads:
		if rt.reference != "" && !sessionPattern.MatchString(rt.reference) {
			return refuse(http.StatusNotFound, codeBlobUploadUnknown, "no such upload")
		}
		return nil
	case tags:
		return nil
	case manifests:
		if tagPattern.MatchString(rt.reference) {
			return nil
		}
		if !strings.Contains(rt.reference, ":") {
			return refuse(http.StatusBadRequest, codeTagInvalid, "%.200q is not a valid tag", rt.reference)
		}
	}
	d, err := parseDigest(rt.reference)
	if err != nil {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "%.200q is not a valid digest", rt.reference)
	}
	rt.digest = d
	return nil
}

// path returns the path that the route was parsed from, in its one canonical spelling.
func (rt route) path() string {
	switch rt.kind {
	case base:
		return "/v2/"
	case catalog:
		return "/v2/_catalog"
	case manifests:
		return "/v2/" + rt.repository + "/manifests/" + rt.reference
	case blobs:
		return "/v2/" + rt.repository + "/blobs/" + rt.reference
	case uploads:
		return "/v2/" + rt.repository + "/blobs/uploads/" + rt.reference
	case referrers:
		return "/v2/" + rt.repository + "/referrers/" + rt.reference
	}
	return "/v2/" + rt.repository + "/tags/list"
}

// parseDigest accepts the digests that the stores support.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", err
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return "", digest.ErrDigestUnsupported
	}
	return d, nil
}
