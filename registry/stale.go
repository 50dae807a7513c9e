package registry

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Stale are notes of who sent content of a repository that quarantine does not have any more, so that they say nothing.
type Stale struct {
	Repository string
	Notes      int
	Newest     time.Time // when the content of the newest was sent
}

// FindStale looks under the directory of a gateway for notes of content that was sent before then and is gone. The gateway may be in use.
func FindStale(dir string, before time.Time) ([]Stale, error) {
	var found []Stale
	root := filepath.Join(dir, holdersRoot)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || !d.IsDir() || d.Name() != holdersFolder:
			return err
		}
		repository, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		s := Stale{Repository: filepath.ToSlash(repository)}
		err = eachStale(dir, s.Repository, before, func(_ string, at time.Time) error {
			s.Notes++
			if at.After(s.Newest) {
				s.Newest = at
			}
			return nil
		})
		if err != nil {
			return err
		}
		if s.Notes > 0 {
			found = append(found, s)
		}
		return fs.SkipDir
	})
	return found, err
}

// RemoveStale removes what FindStale found in a repository, but for content that was sent again meanwhile.
func (g *Gateway) RemoveStale(repository string, newest time.Time) error {
	g.holders.mu.Lock() // content is there before it is noted: what is looked at now stays gone, or is noted anew afterwards
	defer g.holders.mu.Unlock()
	return eachStale(filepath.Dir(g.holders.root), repository, newest.Add(1), func(path string, _ time.Time) error {
		err := os.Remove(path)
		_ = os.Remove(filepath.Dir(path)) // if it was the last of an identity
		return err
	})
}

// eachStale calls visit with the file and the time of each note of a repository from before then whose content quarantine does not have.
func eachStale(dir, repository string, before time.Time, visit func(path string, at time.Time) error) error {
	blobs := filepath.Join(dir, quarantineRoot, filepath.FromSlash(repository), "blobs")
	return filepath.WalkDir(filepath.Join(dir, holdersRoot, filepath.FromSlash(repository), holdersFolder), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.ModTime().Before(before) {
			return nil //nolint:nilerr // it went away meanwhile
		}
		algorithm, hash, _ := strings.Cut(d.Name(), "-")
		if _, err := os.Stat(filepath.Join(blobs, algorithm, hash)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return visit(path, info.ModTime())
	})
}
