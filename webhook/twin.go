package webhook

import (
	"context"
	"slices"
	"time"

	"grindstone/registry"
)

// Twin is an admission of the same files in the same repository, and what was made of it. Clients make a new package of the same file at every push, by the
// time that they write into it; the file is sanitized once.
type Twin struct {
	Admission string `json:"admission"`
	Source    string `json:"source"`   // digest of its pushed manifest
	Released  string `json:"released"` // digest of its released manifest
}

// twin returns an admission whose sanitized models can be this one's too, nil where there is none. One that is being sanitized is waited for.
//
// It must have been sanitized by the same decision and arguments since this server began: another program, configuration or dataset comes with a start.
func (p *Pipeline) twin(ctx context.Context, a *Admission) (*Admission, error) {
	args := p.sanitizerArgs(a)
	like := func(b *Admission) bool {
		return b.ID != a.ID && b.Source.Repository == a.Source.Repository && slices.Equal(b.Source.Models, a.Source.Models) && !b.Unsanitized() &&
			sameAction(b.Decision, a.Decision) && slices.Equal(p.sanitizerArgs(b), args)
	}
	for {
		waits := false
		for _, b := range slices.Backward(p.store.List(like)) {
			switch {
			case b.State == Released && b.Released != nil && b.sanitizedAt().After(p.began):
				there, err := p.registry.Twins(ctx, a.Source.Repository, a.Source.Digest, registry.Twin{Source: b.Source.Digest, Released: b.Released.Digest})
				if err != nil || there {
					return b, err
				}
			case b.ID < a.ID && !b.State.Final() && p.worksOn(b.ID):
				waits = true
			}
		}
		if !waits {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(twinPause):
		}
	}
}

// twinPause is the time between two looks at an admission that is waited for.
const twinPause = time.Second

// worksOn reports whether somebody works on the admission: it does not wait itself for a place in the line.
func (p *Pipeline) worksOn(id string) bool {
	_, ok := p.running.Load(id)
	return ok
}

// sanitizedAt is when the last model of the package was sanitized.
func (a *Admission) sanitizedAt() time.Time {
	for _, c := range slices.Backward(a.History) {
		if c.State == Evaluating {
			return c.At
		}
	}
	return time.Time{}
}

// as takes over what became of a twin's models. The release question is asked anew.
func (a *Admission) as(twin *Admission) {
	a.Report, a.Changed, a.Verdict = twin.Report, slices.Clone(twin.Changed), nil
	a.Further = slices.Clone(twin.Further)
	for i := range a.Further {
		a.Further[i].Verdict = nil
	}
	a.Twin = &Twin{Admission: twin.ID, Source: twin.Source.Digest, Released: twin.Released.Digest}
}
