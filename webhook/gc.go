package webhook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"grindstone/registry"
)

// Garbage is something under the server's folder that nothing needs any more.
type Garbage struct {
	Kind       string    `json:"kind"`                 // one of the Garbage constants
	Path       string    `json:"path"`                 // below the server's folder; of a package: its repository's layout
	Repository string    `json:"repository,omitempty"` // of a package, or of notes
	Digest     string    `json:"digest,omitempty"`     // of a package's manifest
	Admission  string    `json:"admission,omitempty"`  // that it belonged to
	Bytes      int64     `json:"bytes"`                // that go with it
	ModifiedAt time.Time `json:"modified_at"`
	Why        string    `json:"why"`
}

// The kinds of garbage.
const (
	GarbagePackage = "package"   // in quarantine, of an admission that was released or denied, or of none
	GarbageWork    = "work"      // scratch folder of a sanitizer whose admission is not in work
	GarbageTemp    = "temporary" // a write or an upload that was cut off
	GarbageLog     = "log"       // of an admission that there is not
	GarbageHolder  = "holder"    // notes of who sent what quarantine does not have any more, of a repository
	GarbageEvent   = "event"     // record of a push event that failed, or is through, and whose time is over
)

// Discarder takes packages out of quarantine, and notes of who sent what is not there; the registry's Gateway does. It calls guard while nobody can
// push the package.
type Discarder interface {
	RemoveStale(repository string, newest time.Time) error
	Discard(ctx context.Context, repository, digest string, guard func(remove func() error) error) error
}

// FindGarbage looks for what is left behind below the server's folder and has not been changed for the given time. It only reads, and
// the server may run meanwhile.
func FindGarbage(ctx context.Context, dir string, older time.Duration) ([]Garbage, error) {
	store, broken, err := readStore(filepath.Join(dir, "state", "admissions"))
	if err != nil {
		return nil, err
	}
	return findGarbage(ctx, dir, store, len(broken) > 0, older)
}

// findGarbage is FindGarbage with the admissions at hand. Where records are broken, packages without an admission are kept: they may be
// those of the records.
func findGarbage(ctx context.Context, dir string, store *Store, broken bool, older time.Duration) ([]Garbage, error) {
	c := collector{dir: dir, store: store, keepOrphans: broken, before: time.Now().Add(-older)}
	for _, find := range []func(context.Context) error{c.packages, c.work, c.temporaries, c.logs, c.holders, c.events} {
		if err := find(ctx); err != nil {
			return nil, err
		}
	}
	return c.found, nil
}

// RemoveGarbage removes what was found. The result is what was removed.
func RemoveGarbage(ctx context.Context, dir string, found []Garbage, quarantine Discarder) (removed []Garbage, err error) {
	return removeGarbage(ctx, dir, found, quarantine, func(_ Garbage, remove func() error) error { return remove() })
}

// errNeeded says that what was garbage has come into use.
var errNeeded = errors.New("it is needed again")

// removeGarbage is RemoveGarbage for a server that runs: what guard does not remove, because it has come into use meanwhile, stays.
func removeGarbage(ctx context.Context, dir string, found []Garbage, quarantine Discarder, guard func(g Garbage, remove func() error) error) (removed []Garbage, err error) {
	root, err := os.OpenRoot(dir) // nothing is removed outside, whatever links the folder holds
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, g := range found {
		var err error
		switch g.Kind {
		case GarbagePackage:
			err = quarantine.Discard(ctx, g.Repository, g.Digest, func(remove func() error) error { return guard(g, remove) })
		case GarbageHolder:
			err = quarantine.RemoveStale(g.Repository, g.ModifiedAt)
		default:
			err = guard(g, func() error { return root.RemoveAll(g.Path) })
		}
		if errors.Is(err, errNeeded) {
			continue
		}
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return removed, fmt.Errorf("%s: %w", g.Path, err)
		}
		removed = append(removed, g)
	}
	return removed, nil
}

// unlessInWork removes garbage unless somebody has retried its admission, or pushed its package again. Nobody can meanwhile.
func (p *Pipeline) unlessInWork(g Garbage, remove func() error) error {
	p.tags.Lock()
	defer p.tags.Unlock()
	a, ok := p.store.Get(g.Admission)
	if g.Kind == GarbagePackage {
		a, ok = p.store.Newest(g.Repository, g.Digest)
	}
	if ok && !a.State.Final() {
		return errNeeded
	}
	return remove()
}
