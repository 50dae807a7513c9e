package webhook

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// ErrNotFound says that there is no admission with this id.
var ErrNotFound = errors.New("no such admission")

// Store keeps the admissions: one JSON file each, replaced atomically, and a copy of all of them in memory.
type Store struct {
	dir string

	mu     sync.RWMutex
	byID   map[string]*Admission // values are never changed in place: a change replaces them
	refs   references            // finds them
	order  uint64                // of the newest push
	lastID string                // the greatest
	outbox bool                  // final states are marked Unsent, in the same write
}

// OpenStore reads the admissions under dir, which no other process may use. Files that cannot be read stay where they are and are named in broken; their models
// stay in quarantine, because nothing without a record is released.
func OpenStore(dir string) (s *Store, broken []error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("admission store: %w", err)
	}
	cutOff, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil {
		return nil, nil, fmt.Errorf("admission store: %w", err)
	}
	for _, path := range cutOff {
		os.Remove(path) // the file it was to replace is whole
	}
	return readStore(dir)
}

// readStore reads the admissions under dir and changes nothing there.
func readStore(dir string) (s *Store, broken []error, err error) {
	s = &Store{dir: dir, byID: map[string]*Admission{}, refs: newReferences()}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("admission store: %w", err)
	}
	paths := make(chan string)
	var reading sync.WaitGroup
	for range runtime.GOMAXPROCS(0) { // there may be a hundred thousand
		reading.Go(func() {
			for path := range paths {
				a, err := readRecord(path)
				s.mu.Lock()
				if err != nil {
					broken = append(broken, err)
				} else {
					s.remember(a)
				}
				s.mu.Unlock()
			}
		})
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			paths <- filepath.Join(dir, e.Name())
		}
	}
	close(paths)
	reading.Wait()
	return s, broken, nil
}

func readRecord(path string) (*Admission, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var a Admission
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if a.SchemaVersion != 1 || a.ID+".json" != filepath.Base(path) || !slices.Contains(States, a.State) {
		return nil, fmt.Errorf("%s: not an admission record of schema version 1", path)
	}
	if (a.State == Releasing || a.State == Released) && a.Released == nil {
		return nil, fmt.Errorf("%s: the record of a release does not say what is released", path)
	}
	a.Source.annotate(a.Source.Annotations) // of a server that kept all
	a.Source.bound()
	return &a, nil
}

// remember puts a into the memory of the store. The caller holds the lock.
func (s *Store) remember(a *Admission) {
	s.refs.add(a, s.byID[a.ID])
	s.byID[a.ID] = a
	s.lastID = max(s.lastID, a.ID)
	for _, t := range a.Tags {
		s.order = max(s.order, t.Order)
	}
}

// Create stores a new admission in state quarantined, after fill, and returns it. A tag makes it the newest push of that tag.
func (s *Store) Create(src Source, tag, policyDigest string, fill func(*Admission)) (*Admission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.nextID()
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	a := &Admission{SchemaVersion: 1, ID: id, Source: src, Tags: []Tag{}, PolicyDigest: policyDigest, CreatedAt: now}
	a.pushed(tag, s.order+1, now)
	a.enter(Quarantined, "", "", now)
	fill(a)
	return a, s.write(a)
}

// nextID returns a UUID of version 7 that sorts after all others, also after the clock was set back: what is newest is told by it. The caller
// holds the lock.
func (s *Store) nextID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil || id.String() > s.lastID {
		return id.String(), err
	}
	last, err := uuid.Parse(s.lastID)
	if err != nil {
		return id.String(), nil //nolint:nilerr // somebody else has made that record, and there is no order to keep
	}
	milliseconds := binary.BigEndian.Uint64(last[:8])>>16 + 1 // the first 48 bits (RFC 9562)
	for i := range 6 {
		id[i] = byte(milliseconds >> (8 * (5 - i)))
	}
	return id.String(), nil
}

// Repush records that the admission's model was pushed again under tag, which is now the newest push of that tag. A released
// admission goes back to releasing, to move that tag; a held one gets another try.
func (s *Store) Repush(id, tag string) (*Admission, error) {
	return s.Update(id, func(a *Admission) {
		now := time.Now().UTC()
		a.pushed(tag, s.order+1, now)
		switch {
		case a.State == Released && tag != "":
			a.enter(Releasing, "", "pushed again", now)
		case a.State == Held:
			a.again("pushed again", now)
		}
	})
}

// Update changes the admission by change, under the store's lock, and returns it as it is then on disk.
func (s *Store) Update(id string, change func(*Admission)) (*Admission, error) {
	return s.Change(id, func(a *Admission) error {
		change(a)
		return nil
	})
}

// Change is Update with a change that may refuse: its error is returned, and nothing is changed.
func (s *Store) Change(id string, change func(*Admission) error) (*Admission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.byID[id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	a, err := old.clone()
	if err != nil {
		return nil, err
	}
	if err := change(a); err != nil {
		return nil, err
	}
	a.UpdatedAt = time.Now().UTC()
	return a, s.write(a)
}

// write puts a on disk and then in memory. The caller holds the lock.
func (s *Store) write(a *Admission) error {
	if old := s.byID[a.ID]; s.outbox && a.State.Final() && (old == nil || old.changes() != a.changes()) {
		a.Unsent = true
	}
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("admission %s: %w", a.ID, err)
	}
	if err := writeFileAtomic(filepath.Join(s.dir, a.ID+".json"), append(data, '\n')); err != nil {
		return fmt.Errorf("admission %s: %w", a.ID, err)
	}
	s.remember(a)
	return nil
}

// Get returns the admission. The value is shared: it must not be changed.
func (s *Store) Get(id string) (*Admission, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, ok := s.byID[id]
	return a, ok
}

// List returns the admissions that match, oldest first. The values are shared: they must not be changed.
func (s *Store) List(match func(*Admission) bool) []*Admission {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := []*Admission{}
	for _, a := range s.byID {
		if match(a) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *Admission) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Writable reports why the store cannot be written to, or nil.
func (s *Store) Writable() error { return writable(s.dir) }

func writable(dir string) error {
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString("writable\n")
	return errors.Join(err, f.Sync(), f.Close())
}

func (a *Admission) clone() (*Admission, error) {
	data, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	var c Admission
	return &c, json.Unmarshal(data, &c)
}
