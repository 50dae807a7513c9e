package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/registry"
)

// collector looks for garbage.
type collector struct {
	dir         string
	store       *Store
	keepOrphans bool
	before      time.Time // only what was changed before
	found       []Garbage
}

// old reports the file's last change if that is long enough ago.
func (c *collector) old(path string) (time.Time, bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), info.ModTime().Before(c.before)
}

// add reports a file or folder by its path if it is old enough.
func (c *collector) add(kind, path, admission, why string) error {
	name, err := filepath.Rel(c.dir, path)
	if err != nil {
		return err
	}
	if at, ok := c.old(path); ok {
		c.found = append(c.found, Garbage{Kind: kind, Path: filepath.ToSlash(name), Admission: admission, Bytes: sizeOf(path), ModifiedAt: at, Why: why})
	}
	return nil
}

// sizeOf is the size of a file, or of all files in a folder, as far as they can be read.
func sizeOf(path string) (size int64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // it went away meanwhile
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}

// packages looks for manifests in quarantine that no admission needs and no other manifest refers to.
func (c *collector) packages(ctx context.Context) error {
	root := filepath.Join(c.dir, "registry", "quarantine")
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case d.IsDir() && (d.Name() == "blobs" || d.Name() == "_uploads"):
			return fs.SkipDir
		case d.IsDir() || d.Name() != ocispec.ImageIndexFile:
			return nil
		}
		layout := filepath.Dir(path)
		repository, err := filepath.Rel(root, layout)
		if err != nil {
			return err
		}
		return c.repository(filepath.ToSlash(repository), layout)
	})
}

// quarantined is a manifest in quarantine, as far as the collector looks at it.
type quarantined struct {
	ocispec.Descriptor
	refersTo []ocispec.Descriptor // layers, config, manifests, subject
	needed   bool
	why      string
	id       string // admission
}

func (c *collector) repository(repository, layout string) error {
	all, err := c.manifests(repository, layout)
	if err != nil {
		return err
	}
	kept := map[string]bool{} // what is needed by those that stay
	for more := true; more; {
		more = false
		for _, m := range all {
			if !m.needed && kept[m.Digest.String()] {
				m.needed, more = true, true
			}
			for _, d := range m.refersTo {
				if m.needed && !kept[d.Digest.String()] {
					kept[d.Digest.String()], more = true, true
				}
			}
		}
	}
	for _, m := range all {
		at, old := c.old(filepath.Join(layout, ocispec.ImageBlobsDir, m.Digest.Algorithm().String(), m.Digest.Encoded()))
		if m.needed || !old {
			continue
		}
		name, err := filepath.Rel(c.dir, layout)
		if err != nil {
			return err
		}
		g := Garbage{Kind: GarbagePackage, Path: filepath.ToSlash(name), Repository: repository, Digest: m.Digest.String(), Admission: m.id,
			Bytes: m.Size, ModifiedAt: at, Why: m.why}
		for _, d := range m.refersTo {
			if !kept[d.Digest.String()] {
				g.Bytes += d.Size
				kept[d.Digest.String()] = true // counted once
			}
		}
		c.found = append(c.found, g)
	}
	return nil
}

// manifests reads a layout's index and says of each manifest whether its admission needs it.
func (c *collector) manifests(repository, layout string) ([]*quarantined, error) {
	var index ocispec.Index
	text, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(layout, ocispec.ImageIndexFile), err)
	}
	var all []*quarantined
	for _, d := range index.Manifests {
		if d.Digest.Validate() != nil || slices.ContainsFunc(all, func(m *quarantined) bool { return m.Digest == d.Digest }) {
			continue
		}
		m := &quarantined{Descriptor: d}
		all = append(all, m)
		var content struct {
			Config    *ocispec.Descriptor
			Subject   *ocispec.Descriptor
			Layers    []ocispec.Descriptor
			Manifests []ocispec.Descriptor
		}
		text, err := os.ReadFile(filepath.Join(layout, ocispec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded()))
		if err != nil || json.Unmarshal(text, &content) != nil {
			m.needed = true // it cannot be understood: somebody has to look
			continue
		}
		m.refersTo = append(content.Layers, content.Manifests...)
		for _, d := range []*ocispec.Descriptor{content.Config, content.Subject} {
			if d != nil {
				m.refersTo = append(m.refersTo, *d)
			}
		}
		a, ok := c.store.Newest(repository, d.Digest.String())
		switch {
		case !ok:
			m.needed, m.why = c.keepOrphans, "no admission knows it: its push was not acknowledged"
		case a.State == Released || a.State == Denied:
			m.id, m.why = a.ID, "its admission is "+string(a.State)
		default:
			m.needed = true
		}
	}
	return all, nil
}

// work looks for scratch folders of admissions that are not in work.
func (c *collector) work(context.Context) error {
	entries, err := os.ReadDir(filepath.Join(c.dir, "work"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(c.dir, "work", e.Name())
		if event, ok := strings.CutPrefix(e.Name(), ingestScratch); ok && c.pending(event) {
			continue
		}
		if a, ok := c.store.Get(e.Name()); !ok {
			err = errors.Join(err, c.add(GarbageWork, path, "", "no admission has its name"))
		} else if a.State.Final() {
			err = errors.Join(err, c.add(GarbageWork, path, a.ID, "its admission is "+string(a.State)))
		}
	}
	return err
}

// temporaries looks for writes and uploads that were cut off. A write takes seconds and an upload may pause: both have the time that
// garbage is given.
func (c *collector) temporaries(ctx context.Context) error {
	for _, top := range []string{"state", "registry"} {
		err := filepath.WalkDir(filepath.Join(c.dir, top), func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil || ctx.Err() != nil:
				return errors.Join(err, ctx.Err())
			case d.IsDir():
				return nil
			case filepath.Base(filepath.Dir(path)) == "_uploads":
				return c.add(GarbageTemp, path, "", "an upload that did not end")
			case strings.HasPrefix(d.Name(), tempPrefix), registry.IsLeftover(d.Name()):
				return c.add(GarbageTemp, path, "", "a write that did not end")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// logs looks for logs of admissions that there are not.
func (c *collector) logs(context.Context) error {
	entries, err := os.ReadDir(filepath.Join(c.dir, "state", runLogFolder))
	if errors.Is(err, fs.ErrNotExist) || c.keepOrphans {
		return nil
	}
	for _, e := range entries {
		id, isLog := strings.CutSuffix(e.Name(), ".jsonl")
		if _, ok := c.store.Get(id); isLog && !ok {
			err = errors.Join(err, c.add(GarbageLog, filepath.Join(c.dir, "state", runLogFolder, e.Name()), "", "no admission has its name"))
		}
	}
	return err
}

// holders looks for notes of who sent what is not in quarantine any more. A push that goes on has its content there.
func (c *collector) holders(context.Context) error {
	stale, err := registry.FindStale(filepath.Join(c.dir, "registry"), c.before)
	for _, s := range stale {
		c.found = append(c.found, Garbage{
			Kind: GarbageHolder, Path: "registry/holders/" + s.Repository, Repository: s.Repository, ModifiedAt: s.Newest,
			Why: fmt.Sprintf("%d notes of who sent what quarantine does not have any more", s.Notes),
		})
	}
	return err
}

// events looks for records of push events whose time is over. A server that runs removes them by itself within the hour.
func (c *collector) events(context.Context) error {
	files, err := filepath.Glob(filepath.Join(c.dir, "state", ingestFolder, "*.json"))
	for _, path := range files {
		if i, rerr := readIngestion(path); rerr == nil && !i.ExpiresAt.IsZero() && i.expired(time.Now()) {
			err = errors.Join(err, c.add(GarbageEvent, path, "", "its push event is "+i.State+", and was to be kept until "+i.ExpiresAt.UTC().Format(time.DateOnly)))
		}
	}
	return err
}

// pending reports whether the package of a push event is yet to be brought in.
func (c *collector) pending(event string) bool {
	i, err := readIngestion(filepath.Join(c.dir, "state", ingestFolder, event+".json"))
	return err == nil && i.State == IngestPending
}
