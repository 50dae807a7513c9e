package huggingface

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is how Git names blobs; large files have SHA-256
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/url"
	"slices"
	"strings"

	"grindstone/webhook/remotefile"
)

const (
	maxFiles = 10_000 // of a commit, all kinds together
	maxPages = 100    // of the list of a commit's files
)

// File is a file of a commit.
type File struct {
	Path   string // with slashes
	Size   int64  // bytes
	SHA256 string // of the content, if it is a large file (Git LFS, Xet)
	Blob   string // else the name of its Git blob: SHA-1 of a header and the content
}

// Commit is the commit that a ref, as in refs/heads/main, or its short name, is at.
func (h *Hub) Commit(ctx context.Context, model, ref string) (string, error) {
	var answer struct {
		SHA string `json:"sha"`
	}
	_, err := h.call(ctx, "/api/models/"+remotefile.Escaped(model)+"/revision/"+url.PathEscape(ref), nil, &answer)
	return answer.SHA, err
}

// Files lists the files of a commit, sorted by their paths. A path that could lie outside of a folder is remotefile.ErrUnsupported.
func (h *Hub) Files(ctx context.Context, model, commit string) ([]File, error) {
	var all []File
	query := url.Values{"recursive": {"true"}}
	for range maxPages {
		var page []struct {
			Type string
			OID  string
			Size int64
			Path string
			LFS  *struct {
				OID  string
				Size int64
			}
		}
		next, err := h.call(ctx, "/api/models/"+remotefile.Escaped(model)+"/tree/"+commit, query, &page)
		if err != nil {
			return nil, err
		}
		for _, entry := range page {
			f := File{Path: entry.Path, Size: entry.Size, Blob: entry.OID}
			if entry.LFS != nil {
				f = File{Path: entry.Path, Size: entry.LFS.Size, SHA256: entry.LFS.OID}
			}
			switch {
			case entry.Type == "directory":
				continue
			case !remotefile.Safe(f.Path):
				return nil, fmt.Errorf("%w: %.200q is no path of a file", remotefile.ErrUnsupported, f.Path)
			case f.Size < 0 || len(all) >= maxFiles:
				return nil, fmt.Errorf("%w: the commit has more than %d files, or one of a negative size", remotefile.ErrUnsupported, maxFiles)
			}
			all = append(all, f)
		}
		if next == nil {
			slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
			return all, nil
		}
		query = next
	}
	return nil, fmt.Errorf("%w: the list of the commit's files has more than %d pages", remotefile.ErrUnsupported, maxPages)
}

// Download copies a file of a commit to w. What has not the listed size and hash is an error, after it was written.
func (h *Hub) Download(ctx context.Context, model, commit string, f File, w io.Writer) error {
	ctx, transfer := remotefile.WhileMoving(ctx)
	defer transfer.Stop()
	answer, err := h.get(ctx, "/"+remotefile.Escaped(model)+"/resolve/"+commit+"/"+remotefile.Escaped(f.Path), nil)
	if err != nil {
		return fmt.Errorf("download %s: %w", f.Path, remotefile.Why(ctx, err))
	}
	defer answer.Body.Close()
	sum, want := f.hash()
	if err := remotefile.Copy(ctx, io.MultiWriter(w, sum), transfer.Reader(answer.Body), f.Path, f.Size); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("download %s: what came has the hash %s, the Hub lists %.64q", f.Path, got, want)
	}
	return nil
}

// hash is the hash of the file's content and what it has to be.
func (f File) hash() (hash.Hash, string) {
	if f.SHA256 != "" {
		return sha256.New(), f.SHA256
	}
	sum := sha1.New() //nolint:gosec // as above
	fmt.Fprintf(sum, "blob %d\x00", f.Size)
	return sum, f.Blob
}
