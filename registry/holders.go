package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// holders remembers which identity sent which content into which quarantined repository. Without it, whoever knows a digest
// could name it in a manifest of his own and so have it, because quarantine has it already; and could ask quarantine whether it
// has it. An empty file stands for each fact, under root/<repository>/_by/<hash of the identity>/<digest>; a lost one costs an upload.
type holders struct {
	root string
	mu   sync.Mutex // held while a file is made or removed
}

// holdersFolder is the folder of a repository that has what its identities sent. No part of a repository's name begins like it.
const holdersFolder = "_by"

func (h *holders) path(repository, who string, d digest.Digest) string {
	sum := sha256.Sum256([]byte(who))
	return filepath.Join(h.root, filepath.FromSlash(repository), holdersFolder, hex.EncodeToString(sum[:16]), d.Algorithm().String()+"-"+d.Encoded())
}

func (h *holders) has(repository, who string, d digest.Digest) bool {
	_, err := os.Stat(h.path(repository, who, d))
	return err == nil
}

// add notes that the content, which is there, was sent; if it was noted before, that it was sent again.
func (h *holders) add(repository, who string, d digest.Digest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	path := h.path(repository, who, d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	now := time.Now()
	return errors.Join(os.Chtimes(path, now, now), f.Close())
}
