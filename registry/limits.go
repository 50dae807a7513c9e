package registry

import (
	"io"
	"math"
	"net/http"
)

// readManifest reads the body of a manifest PUT.
func (g *Gateway) readManifest(r *http.Request) ([]byte, error) {
	tooLarge := refuse(http.StatusRequestEntityTooLarge, codeManifestInvalid, "the manifest is larger than %d bytes", g.limits.ManifestBytes)
	if r.ContentLength > g.limits.ManifestBytes {
		return nil, tooLarge
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, g.limits.ManifestBytes+1))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "the manifest could not be read").because(err)
	}
	if int64(len(raw)) > g.limits.ManifestBytes {
		return nil, tooLarge
	}
	return raw, nil
}

// limitUpload applies Limits.BlobBytes to an upload, of which so much has come before. The writer that it returns turns the store's answer into
// 413 if the body, whose length was not announced, was too long.
func (g *Gateway) limitUpload(w http.ResponseWriter, r *http.Request, before int64, count func(n int)) (http.ResponseWriter, error) {
	left := int64(math.MaxInt64)
	if g.limits.BlobBytes > 0 {
		left = g.limits.BlobBytes - before
	}
	tooLarge := refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "the upload is larger than %d bytes", g.limits.BlobBytes)
	if r.ContentLength > left {
		return w, tooLarge
	}
	body := &limitedBody{ReadCloser: r.Body, left: left, count: count}
	r.Body = body
	return &limitedWriter{ResponseWriter: w, body: body, refuse: func() { writeError(w, r, g.log, tooLarge) }}, nil
}

// limitedBody counts what is read, ends with an error at its limit and remembers that.
type limitedBody struct {
	io.ReadCloser
	left     int64
	count    func(n int)
	exceeded bool
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(n)
	if b.left -= int64(n); b.left < 0 {
		b.exceeded = true
		return 0, errTooLarge
	}
	return n, err
}

type limitedWriter struct {
	http.ResponseWriter
	body   *limitedBody
	refuse func()
}

func (w *limitedWriter) WriteHeader(status int) {
	if status == http.StatusInternalServerError && w.body.exceeded {
		w.refuse()
		return
	}
	w.ResponseWriter.WriteHeader(status)
}
