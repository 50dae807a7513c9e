package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"grindstone/internal/regular"
	"grindstone/registry"
)

// writtenFiles lists the files of the package that the run for the n-th model wrote under dir: the model, and external data that it keeps weights in.
// All that changed take the places of the pushed ones, or the released model would read pushed weights. They are on stable storage when it
// returns. A file that the package does not have is a verdict.
func writtenFiles(r sanitizerRun, dir string, n int) ([]ChangedFile, error) {
	var written []ChangedFile
	left := cmp.Or(r.Most, math.MaxInt64)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return syncPath(path)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		i := slices.IndexFunc(r.Package, func(f registry.LocalFile) bool { return f.Name == name })
		if i < 0 || !e.Type().IsRegular() {
			return held(ReasonInvalidOutput, fmt.Sprintf("the sanitizer's output is not usable: %q is no file of the package", printable(name, 200)))
		}
		sum, size, err := syncedSHA256(path, left)
		if errors.Is(err, regular.ErrSize) {
			return held(ReasonInvalidOutput, fmt.Sprintf("the sanitizer's output is not usable: it has more than %d bytes", r.Most))
		} else if err != nil {
			return err
		}
		left -= size
		written = append(written, ChangedFile{Name: name, Digest: r.Package[i].Digest, SHA256: sum, Model: n})
		return nil
	})
	return written, err
}
