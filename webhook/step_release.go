package webhook

import (
	"context"
	"slices"
)

// release moves the tags to the released model, and only those whose newest push is this one. It is the last step: everything
// that a tag leads to is there before it moves. The caller sees to it that no other release moves tags meanwhile. Pushes go on: a tag that is pushed while it
// is moved is moved again by its newer push.
func (p *Pipeline) release(ctx context.Context, a *Admission) (State, error) {
	for i := range a.Tags {
		t := &a.Tags[i]
		if t.Moved || p.store.Owner(a.Source.Repository, t.Name) != a.ID {
			continue
		}
		if err := p.registry.Tag(ctx, a.Source.Repository, t.Name, a.Released.Digest); err != nil {
			return "", err
		}
		if err := p.tagBack(ctx, a, t.Name); err != nil {
			return "", err
		}
		t.Moved = true
		p.passing("tag moved")
	}
	return Released, nil
}

// hasTagToMove reports whether a tag was pushed while the others were moved. The caller holds the lock on tags.
func (p *Pipeline) hasTagToMove(work *Admission) bool {
	a, ok := p.store.Get(work.ID)
	if !ok {
		return false
	}
	for _, t := range a.Tags {
		done := slices.ContainsFunc(work.Tags, func(w Tag) bool { return w.Order == t.Order && w.Moved })
		if !t.Moved && !done && p.store.Owner(a.Source.Repository, t.Name) == a.ID {
			return true
		}
	}
	return false
}

// moved records the moves of tags that were made on a copy of the record.
func (a *Admission) moved(tags []Tag) {
	for _, w := range tags {
		for i := range a.Tags {
			a.Tags[i].Moved = a.Tags[i].Moved || w.Moved && w.Order == a.Tags[i].Order
		}
	}
}
