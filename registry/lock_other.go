//go:build !unix

package registry

import (
	"io"
	"os"
	"path/filepath"
)

// lockDir only marks the directory on systems without flock: do not start two processes on it.
func lockDir(dir string) (io.Closer, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
}
