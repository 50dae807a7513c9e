package webhook

import (
	"context"

	"grindstone/policy"
)

// evaluate asks the policy whether the model that was sanitized last may be released, given its report. Then it is the next model's turn.
func (p *Pipeline) evaluate(ctx context.Context, a *Admission) (State, error) {
	if !p.outputThere(a) {
		a.forget()
		return Sanitizing, nil // the scratch folder is gone: do it again
	}
	results := a.results()
	d, err := p.Policy.Release(ctx, policy.ReleaseInput{
		Admission: p.admissionInput(a.Source, a.tag()), Decision: *a.Decision, Report: results[len(results)-1].Report,
	})
	if err != nil {
		return "", p.undecided(err)
	}
	a.judged(&d)
	if !d.Release {
		return "", held(ReasonReleaseRejected, a.about(reasons(d.Reasons)))
	}
	if a.through() < len(a.Source.targets()) {
		return Sanitizing, nil
	}
	return Attesting, nil
}
