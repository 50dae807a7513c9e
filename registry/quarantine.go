package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveIntercepted answers requests to an intercepted repository:
//
//	manifests  PUT         into quarantine, then the admitter decides
//	           GET, HEAD   released; by digest also what the same identity pushed, and everything to operators
//	blobs      GET         likewise
//	           HEAD        released, or sent by the same identity: clients ask before an upload and after it
//	uploads                into quarantine
//	referrers              released; of a manifest in quarantine also those there that the same identity pushed, and all to operators
//	tags                   released only
//	DELETE                 refused, except of an upload
func (g *Gateway) serveIntercepted(w http.ResponseWriter, r *http.Request, rt route) error {
	steady(w, r, g.limits)
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case rt.kind == uploads:
		return g.upload(w, r, rt)
	case rt.kind == tags:
		return g.tags(w, r, rt)
	case rt.kind == manifests && r.Method == http.MethodPut:
		return g.push(w, r, rt)
	case rt.kind == manifests && read:
		return g.pull(w, r, rt)
	case rt.kind == blobs && read:
		return g.pullBlob(w, r, rt)
	case rt.kind == referrers && read:
		return g.referrers(w, r, rt)
	case r.Method == http.MethodDelete:
		return refuse(http.StatusMethodNotAllowed, codeUnsupported, "nothing can be deleted from %s: its pushes are intercepted", rt.repository)
	}
	return refuse(http.StatusMethodNotAllowed, codeUnsupported, "%s is not supported here", r.Method)
}

// push stores a manifest in quarantine and asks the admitter. Quarantine knows packages by digest; the tag of a push is
// kept by the admitter, and becomes visible with Gateway.Tag.
func (g *Gateway) push(w http.ResponseWriter, r *http.Request, rt route) error {
	ctx := r.Context()
	if r.URL.RawQuery != "" {
		return refuse(http.StatusBadRequest, codeUnsupported, "a manifest is pushed without query parameters")
	}
	raw, err := g.readManifest(r)
	if err != nil {
		return err
	}
	m, err := parseManifest(r.Header.Get("Content-Type"), raw)
	if err != nil {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "%v", err)
	}
	d, tag := rt.digest, ""
	if d == "" {
		d, tag = digest.FromBytes(raw), rt.reference
	} else if d.Algorithm().FromBytes(raw) != d {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "the manifest does not have the digest %s", d)
	}

	defer g.pushes.lock(rt.repository + "@" + d.String())()
	known, err := g.quarantine.hasManifest(ctx, rt.repository, d.String())
	if err != nil {
		return err
	}
	if attestationTag.MatchString(tag) {
		return refuse(http.StatusForbidden, codeDenied, "tags like %s are kept for the attestations of released models", tag)
	}
	if err := g.completePackage(ctx, rt.repository, m); err != nil {
		return err
	}
	if err := g.quarantine.putManifest(ctx, rt.repository, d.String(), m.mediaType, raw); err != nil {
		return err
	}
	acknowledged := known
	defer func() {
		if acknowledged {
			return
		}
		if err := g.quarantine.deleteManifest(context.WithoutCancel(ctx), rt.repository, d); err != nil {
			g.log.Error("a refused package stays in quarantine", "repository", rt.repository, "digest", d, "cause", err)
		}
	}()

	p, _, err := g.describe(ctx, rt.repository, d, m)
	if err != nil {
		return err
	}
	p.Tag, p.Identity = tag, Identity(ctx)
	if err := g.checkSubject(ctx, rt.repository, m, &p); err != nil {
		return err
	}
	denial, err := g.admitter.Admit(ctx, p)
	if err != nil {
		return refuse(http.StatusServiceUnavailable, codeUnavailable, "the push could not be decided now: push again later").because(err)
	}
	if denial != nil {
		return denied(denial)
	}
	acknowledged = true
	if err := g.holders.add(rt.repository, p.Identity, d); err != nil {
		g.log.Warn("who pushed a package cannot be noted: it cannot read it back", "repository", rt.repository, "digest", d, "cause", err)
	}
	w.Header().Set("Location", route{kind: manifests, repository: rt.repository, reference: d.String()}.path())
	w.Header().Set("Docker-Content-Digest", d.String())
	if m.subject != nil {
		w.Header().Set("OCI-Subject", m.subject.Digest.String())
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// checkSubject makes it a problem of a package that it refers to one that is hidden: who may not see a model is not told of what is attached to it.
func (g *Gateway) checkSubject(ctx context.Context, repository string, m *manifest, p *Push) error {
	if m.subject == nil {
		return nil
	}
	d := m.subject.Digest.String()
	pushed, err := g.quarantine.hasManifest(ctx, repository, d)
	if err != nil || !pushed {
		return err
	}
	_, _, err = g.released.manifest(ctx, repository, d)
	if errors.Is(err, ErrNotFound) {
		p.Problem = strings.TrimPrefix(p.Problem+"; it refers to "+d+", which is not released as it was pushed", "; ")
		return nil
	}
	return err
}

// attestationTag matches the tags under which verifiers look for attestations without the referrers API (cosign's, and the specification's
// fallback).
var attestationTag = regexp.MustCompile(`^sha(256|512)-[0-9a-f]{64,128}(\.att)?$`)

func denied(d *Denial) *clientError {
	e := &clientError{status: http.StatusForbidden, code: codeDenied}
	prefix := "denied by policy"
	if d.ID != "" {
		prefix = "admission " + d.ID + ": " + prefix
	}
	for _, reason := range d.Reasons {
		e.messages = append(e.messages, prefix+": "+reason)
	}
	if len(e.messages) == 0 {
		e.messages = []string{prefix}
	}
	return e
}

// completePackage sees to it that quarantine has all content of a package, durably. Content that the client did not
// upload because the released repository has it already is linked.
func (g *Gateway) completePackage(ctx context.Context, repository string, m *manifest) error {
	if err := g.quarantine.create(ctx, repository); err != nil {
		return err
	}
	for _, d := range m.descriptors() {
		if err := g.completeBlob(ctx, repository, d); err != nil {
			return err
		}
	}
	return g.quarantine.syncBlobs(repository, m.descriptors())
}

// completeBlob sees to it that quarantine has one blob. What another identity sent counts as not sent.
func (g *Gateway) completeBlob(ctx context.Context, repository string, d ocispec.Descriptor) error {
	if g.limits.BlobBytes > 0 && d.Size > g.limits.BlobBytes {
		return refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "%s is larger than %d bytes", d.Digest, g.limits.BlobBytes)
	}
	size, ok := g.quarantine.blobSize(repository, d.Digest)
	if !ok || !g.holds(ctx, repository, d.Digest) {
		var err error
		if size, ok, err = g.released.findBlob(ctx, repository, d.Digest); err != nil {
			return err
		}
		if !ok {
			return refuse(http.StatusBadRequest, codeManifestBlobUnknown, "%s has not been uploaded", d.Digest)
		}
	}
	if size != d.Size {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "%s has %d bytes, not %d as the manifest says", d.Digest, size, d.Size)
	}
	if _, ok := g.quarantine.blobSize(repository, d.Digest); ok {
		return nil
	}
	return g.released.giveBlob(ctx, repository, d.Digest, g.quarantine, repository)
}

// pull answers a read of a manifest from the backend, else from quarantine to those who may see it, and explains to others
// why there is none.
func (g *Gateway) pull(w http.ResponseWriter, r *http.Request, rt route) error {
	return g.released.read(w, r, rt, func() error {
		status, known := g.admitter.Status(rt.repository, rt.reference)
		hidden := false
		if rt.digest != "" {
			var err error
			if hidden, err = g.quarantine.hasManifest(r.Context(), rt.repository, rt.reference); err != nil {
				return err
			}
		}
		message := fmt.Sprintf("%s is not known in %s", rt.reference, rt.repository)
		if known || hidden {
			message = explain(rt, status, known)
			w.Header().Set("Warning", warning(message)) // oras drops the body of a 404, but not this
		}
		if hidden && g.insider(r, rt) {
			return g.quarantine.forward(w, r, rt, nil)
		}
		// Clients that push ask by HEAD whether a manifest is there, and of oras-go any answer but 404 ends the push. So
		// that a push can be repeated, HEAD says 404 always; the explanation goes in the Warning header.
		if rt.digest != "" && (known || hidden) && r.Method == http.MethodGet {
			return refuse(http.StatusForbidden, codeDenied, "%s", message)
		}
		return refuse(http.StatusNotFound, codeManifestUnknown, "%s", message)
	})
}

// explain says why a reference is not visible.
func explain(rt route, s Status, known bool) string {
	if !known {
		return rt.reference + " is in quarantine"
	}
	message := fmt.Sprintf("%s is not visible: admission %s is in state %s", rt.reference, s.ID, s.State)
	if s.Reason != "" {
		message += ": " + s.Reason
	}
	return message
}

// pullBlob answers a read of a blob.
func (g *Gateway) pullBlob(w http.ResponseWriter, r *http.Request, rt route) error {
	return g.released.read(w, r, rt, func() error {
		if _, ok := g.quarantine.blobSize(rt.repository, rt.digest); ok {
			if g.insider(r, rt) || r.Method == http.MethodHead && g.holds(r.Context(), rt.repository, rt.digest) {
				return g.quarantine.forward(w, r, rt, nil)
			}
			if r.Method == http.MethodGet {
				status, known := g.admitter.Status(rt.repository, rt.reference)
				return refuse(http.StatusForbidden, codeDenied, "%s", explain(rt, status, known))
			}
		}
		return refuse(http.StatusNotFound, codeBlobUnknown, "%s is not known in %s", rt.reference, rt.repository)
	})
}

// withBody returns the request with another body.
func withBody(r *http.Request, body []byte) *http.Request {
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return r
}
