package webhook

import (
	"context"
	"slices"
	"time"
)

// release moves the tags to the released model, and only those that it is to hold (Store.Holder): while a newer push is in work, its tag is left to that. It is the last step: everything
// that a tag leads to is there before it moves. The caller sees to it that no other release moves tags meanwhile. Pushes go on: a tag that is pushed while it
// is moved is moved again by its newer push.
func (p *Pipeline) release(ctx context.Context, a *Admission) (State, error) {
	for i := range a.Tags {
		t := &a.Tags[i]
		if t.Moved || p.store.Holder(a.Source.Repository, t.Name) != a.ID {
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
		if !t.Moved && !done && p.store.Holder(a.Source.Repository, t.Name) == a.ID {
			return true
		}
	}
	return false
}

// yield gives the tags of a push that is held or denied to the newest push before it that is released, if there is one: it was released by
// its digest only, because it was not the newest. The caller holds the lock on tags.
func (p *Pipeline) yield(loser *Admission) {
	for _, t := range loser.Tags {
		if err := p.claimTag(loser.Source.Repository, t.Name); err != nil {
			p.Log.Error("a tag cannot go back to the push before; the next start does it", "tag", t.Name, "admission", loser.ID, "error", err)
		}
	}
}

// claimTag has the tag moved to the release of its holder, if it has not been.
func (p *Pipeline) claimTag(repository, tag string) error {
	a, ok := p.store.Get(p.store.Holder(repository, tag))
	if !ok || a.State != Released || slices.ContainsFunc(a.Tags, func(t Tag) bool { return t.Name == tag && t.Moved }) {
		return nil
	}
	a, err := p.store.Update(a.ID, func(a *Admission) {
		a.enter(Releasing, "", "the tag "+tag+" has no newer push that can be released", time.Now().UTC())
	})
	if err != nil {
		return err
	}
	p.announce(a)
	p.backlog.add(a.ID)
	return nil
}

// claimTags does what a kill kept yield from doing.
func (p *Pipeline) claimTags() error {
	for _, a := range p.store.List(func(a *Admission) bool { return a.State == Released }) {
		for _, t := range a.Tags {
			if t.Moved {
				continue
			}
			if err := p.claimTag(a.Source.Repository, t.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// moved records the moves of tags that were made on a copy of the record.
func (a *Admission) moved(tags []Tag) {
	for _, w := range tags {
		for i := range a.Tags {
			a.Tags[i].Moved = a.Tags[i].Moved || w.Moved && w.Order == a.Tags[i].Order
		}
	}
}
