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

// limitUpload applies Limits.BlobBytes to all that comes of an upload.
func (g *Gateway) limitUpload(r *http.Request, s *upload) (*limitedBody, error) {
	left := int64(math.MaxInt64)
	if g.limits.BlobBytes > 0 {
		left = g.limits.BlobBytes - s.received.Load()
	}
	if r.ContentLength > left {
		return nil, g.tooLarge()
	}
	body := &limitedBody{ReadCloser: r.Body, left: left, count: s.took}
	r.Body = body
	return body, nil
}

func (g *Gateway) tooLarge() error {
	return refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "the upload is larger than %d bytes", g.limits.BlobBytes)
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
