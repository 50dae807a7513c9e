package webhook

import (
	"cmp"
	"slices"
)

// reference is a tag or a digest in a repository.
type reference struct{ repository, name string }

// references are the ids of the admissions by what is asked about them: looking at all takes long when there are many, and none is ever removed.
type references struct {
	digests  map[reference]string   // the newest of a pushed manifest
	blobs    map[reference]string   // the newest of a package with this blob
	releases map[reference][]string // those that were released as this digest, at some time
	tags     map[reference][]push   // those that were pushed under this tag, in the order of their last pushes
}

// push is an admission's last push of a tag.
type push struct {
	order uint64
	id    string
}

func newReferences() references {
	return references{map[reference]string{}, map[reference]string{}, map[reference][]string{}, map[reference][]push{}}
}

// add takes up an admission as it is now, and was before; nil is a new one.
func (r references) add(a, before *Admission) {
	at := func(name string) reference { return reference{a.Source.Repository, name} }
	if before == nil {
		before = &Admission{}
		digest := at(a.Source.Digest)
		r.digests[digest] = max(r.digests[digest], a.ID)
		for _, b := range a.Source.Blobs {
			r.blobs[at(b)] = max(r.blobs[at(b)], a.ID)
		}
	}
	if a.Released != nil && (before.Released == nil || before.Released.Digest != a.Released.Digest) {
		digest := at(a.Released.Digest)
		r.releases[digest] = append(r.releases[digest], a.ID)
	}
	for _, t := range a.Tags {
		if before.orderOf(t.Name) != t.Order {
			pushes := slices.DeleteFunc(r.tags[at(t.Name)], func(p push) bool { return p.id == a.ID })
			i, _ := slices.BinarySearchFunc(pushes, t.Order, func(p push, order uint64) int { return cmp.Compare(p.order, order) })
			r.tags[at(t.Name)] = slices.Insert(pushes, i, push{t.Order, a.ID})
		}
	}
}

// orderOf returns the order of the admission's push of a tag, 0 if there was none.
func (a *Admission) orderOf(tag string) uint64 {
	i := slices.IndexFunc(a.Tags, func(t Tag) bool { return t.Name == tag })
	if i < 0 {
		return 0
	}
	return a.Tags[i].Order
}

// Newest returns the newest admission of a source digest in a repository.
func (s *Store) Newest(repository, digest string) (*Admission, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, ok := s.byID[s.refs.digests[reference{repository, digest}]]
	return a, ok
}

// newestWith returns the newest admission of a package in a repository that has this blob.
func (s *Store) newestWith(repository, blob string) (*Admission, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, ok := s.byID[s.refs.blobs[reference{repository, blob}]]
	return a, ok
}

// releasedAs returns the newest admission of a repository that was sanitized and released as a digest.
func (s *Store) releasedAs(repository, digest string) (newest *Admission, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, id := range s.refs.releases[reference{repository, digest}] {
		a := s.byID[id]
		is := a.Released != nil && a.Released.Digest == digest && !a.Unsanitized() && (a.State == Released || a.State == Releasing)
		if is && (newest == nil || a.ID > newest.ID) {
			newest = a
		}
	}
	return newest, newest != nil
}

// Owner returns the id of the admission that holds the newest push of a tag, or "". A denied push was refused to the client's face: the tag keeps
// its meaning.
func (s *Store) Owner(repository, tag string) string {
	return s.newestPush(repository, tag, func(a *Admission) bool { return a.State != Denied })
}

// Holder returns the id of the admission whose release a tag is to point at: of the pushes of the tag the newest that did not fail, or "". One that is denied
// never has the tag, and one that is held does not keep it from the release of an older push, unless the tag points at its own release already.
func (s *Store) Holder(repository, tag string) string {
	return s.newestPush(repository, tag, func(a *Admission) bool {
		return a.State != Denied && (a.State != Held || slices.ContainsFunc(a.Tags, func(t Tag) bool { return t.Name == tag && t.Moved }))
	})
}

// newestPush returns the id of the admission of the newest push of a tag among those that match, or "".
func (s *Store) newestPush(repository, tag string, match func(*Admission) bool) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range slices.Backward(s.refs.tags[reference{repository, tag}]) {
		if match(s.byID[p.id]) {
			return p.id
		}
	}
	return ""
}
