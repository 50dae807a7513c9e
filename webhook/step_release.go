package webhook

import "context"

// release moves the tags to the released model, and only those whose newest push is this one. It is the last step: everything
// that a tag leads to is there before it moves. The caller holds the lock on tags.
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
