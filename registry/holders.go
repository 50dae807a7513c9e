package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// holders remembers which identity sent which content into which quarantined repository. Without it, whoever knows a digest
// could name it in a manifest of his own and so have it, because quarantine has it already; and could ask quarantine whether it
// has it. An empty file stands for each fact, under root/<repository>/<hash of the identity>/<digest>; a lost one costs an upload.
type holders struct{ root string }

func (h holders) path(repository, who string, d digest.Digest) string {
	sum := sha256.Sum256([]byte(who))
	return filepath.Join(h.root, filepath.FromSlash(repository), "_by", hex.EncodeToString(sum[:16]), d.Algorithm().String()+"-"+d.Encoded())
}

func (h holders) has(repository, who string, d digest.Digest) bool {
	_, err := os.Stat(h.path(repository, who, d))
	return err == nil
}

func (h holders) add(repository, who string, d digest.Digest) error {
	path := h.path(repository, who, d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
