package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// referrers answers what refers to a manifest: what the backend has and, to who may read the manifest in quarantine, what is held there with it.
func (g *Gateway) referrers(w http.ResponseWriter, r *http.Request, rt route) error {
	hidden, err := g.hiddenReferrers(r, rt)
	if err != nil {
		return err
	}
	if len(hidden) == 0 || r.Method != http.MethodGet {
		return g.released.referrers(w, r, rt)
	}
	answer := &reply{header: http.Header{}}
	if err := g.released.referrers(answer, plainGet(r), rt); err != nil {
		return err
	}
	body := answer.body.Bytes()
	if last := !strings.Contains(strings.Join(answer.header["Link"], ","), "next"); last && answer.status == http.StatusOK { // of its pages
		if body, err = withManifests(body, hidden); err != nil {
			return fmt.Errorf("the referrers of %s: %w", rt.digest, err)
		}
		answer.header.Del("Content-Length")
	}
	return answer.send(w, body)
}

// plainGet is a request for the same list whose answer is an index as it is, neither compressed nor conditional.
func plainGet(r *http.Request) *http.Request {
	plain := r.Clone(r.Context())
	plain.Method, plain.Header = http.MethodGet, http.Header{"Accept": {ocispec.MediaTypeImageIndex}}
	if credentials := r.Header["Authorization"]; credentials != nil {
		plain.Header["Authorization"] = credentials
	}
	return plain
}

// send passes an answer on, with another body.
func (r *reply) send(w http.ResponseWriter, body []byte) error {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	_, _ = w.Write(body) // a client that went away cannot be told
	return nil
}

// hiddenReferrers lists the referrers of a manifest in quarantine that the request may see: the manifest is, and so is each of them, its identity's own, or it is
// an operator's. What others attached to it is theirs.
func (g *Gateway) hiddenReferrers(r *http.Request, rt route) ([]ocispec.Descriptor, error) {
	if there, err := g.quarantine.hasManifest(r.Context(), rt.repository, rt.reference); err != nil || !there {
		return nil, err
	}
	r = g.identified(r, rt)
	if !g.entitled(r.Context(), rt.repository, rt.digest) {
		return nil, nil
	}
	path := rt.path()
	if wanted := r.URL.Query().Get("artifactType"); wanted != "" {
		path += "?" + url.Values{"artifactType": {wanted}}.Encode()
	}
	answer, err := g.quarantine.call(r.Context(), http.MethodGet, path, "", nil)
	if err != nil {
		return nil, err
	}
	if answer.status != http.StatusOK {
		return nil, answer.unexpected("listing referrers in quarantine")
	}
	var index ocispec.Index
	if err := json.Unmarshal(answer.body.Bytes(), &index); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return !g.entitled(r.Context(), rt.repository, d.Digest) }), nil
}

// withManifests adds manifests to those that an index in JSON lists; all else of it stays.
func withManifests(raw []byte, more []ocispec.Descriptor) ([]byte, error) {
	var index map[string]json.RawMessage
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	var listed []ocispec.Descriptor
	if err := json.Unmarshal(index["manifests"], &listed); err != nil {
		return nil, err
	}
	for _, d := range more {
		if !slices.ContainsFunc(listed, func(l ocispec.Descriptor) bool { return l.Digest == d.Digest }) {
			listed = append(listed, d)
		}
	}
	manifests, err := json.Marshal(listed)
	if err != nil {
		return nil, err
	}
	index["manifests"] = manifests
	return json.Marshal(index)
}
