package webhook

import (
	"context"
)

// evaluate asks the policy whether the model that was sanitized last may be released, given its report, and again about those before it that another policy
// let through. Then it is the next model's turn.
func (p *Pipeline) evaluate(ctx context.Context, a *Admission) (State, error) {
	if !p.outputThere(a) {
		a.forget()
		return Sanitizing, nil // the scratch folder is gone: do it again
	}
	if err := p.reconsider(ctx, a); err != nil {
		return "", err
	}
	pushed, err := p.question(ctx, a)
	if err != nil {
		return "", err
	}
	questions := a.ReleaseInputs(pushed.Datasets)
	for n, r := range a.results() {
		if r.Verdict != nil && r.Verdict.Release && r.Verdict.PolicyDigest == p.Policy.Digest() {
			continue
		}
		questions[n].Admission = pushed
		d, err := p.Policy.Release(ctx, questions[n])
		if err != nil {
			return "", p.undecided(err)
		}
		a.judged(n, &d)
		if !d.Release {
			return "", held(ReasonReleaseRejected, a.about(r.Name, reasons(d.Reasons)))
		}
	}
	if a.through() < len(a.Source.targets()) {
		return Sanitizing, nil
	}
	return Attesting, nil
}
