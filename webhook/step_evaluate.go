package webhook

import (
	"context"

	"grindstone/policy"
)

// evaluate asks the policy whether the sanitized model may be released, given the report.
func (p *Pipeline) evaluate(ctx context.Context, a *Admission) (State, error) {
	if !p.outputThere(a) {
		return Sanitizing, nil // the scratch folder is gone: do it again
	}
	d, err := p.Policy.Release(ctx, policy.ReleaseInput{
		Admission: p.admissionInput(a.Source, a.tag()), Decision: *a.Decision, Report: a.Report,
	})
	if err != nil {
		return "", p.undecided(err)
	}
	a.Verdict = &d
	if !d.Release {
		return "", held(ReasonReleaseRejected, reasons(d.Reasons))
	}
	return Attesting, nil
}
