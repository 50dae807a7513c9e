package registry

import (
	"io"
	"strings"
)

// Lock takes a directory for this process, until the result is closed. It fails with ErrLocked if another process has it.
func Lock(dir string) (io.Closer, error) { return lockDir(dir) }

// IsLeftover reports whether a file of a store, by its name, is one that is still being written or whose writing was cut off. The
// next New removes those.
func IsLeftover(name string) bool {
	return strings.HasPrefix(name, "index.json.") || strings.HasPrefix(name, temporary)
}
