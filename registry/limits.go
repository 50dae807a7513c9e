package registry

import (
	"errors"
	"io"
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

// limitUpload applies Limits.BlobBytes to an upload request. The writer that it returns turns the store's answer into 413
// if the body, whose length was not announced, was too long.
func (g *Gateway) limitUpload(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, error) {
	if g.limits.BlobBytes == 0 {
		return w, nil
	}
	tooLarge := refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "the upload is larger than %d bytes", g.limits.BlobBytes)
	if r.ContentLength > g.limits.BlobBytes {
		return w, tooLarge
	}
	body := &limitedBody{ReadCloser: http.MaxBytesReader(w, r.Body, g.limits.BlobBytes)}
	r.Body = body
	return &limitedWriter{ResponseWriter: w, body: body, refuse: func() { writeError(w, r, g.log, tooLarge) }}, nil
}

// limitedBody remembers that its limit was reached.
type limitedBody struct {
	io.ReadCloser
	exceeded bool
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var tooLarge *http.MaxBytesError
	b.exceeded = b.exceeded || errors.As(err, &tooLarge)
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
