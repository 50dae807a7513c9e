package webhook

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"grindstone/policy"
)

// decide follows the admission decision, asking the policy where that has not been done at the push.
func (p *Pipeline) decide(ctx context.Context, a *Admission) (State, error) {
	if a.Decision == nil {
		in, err := p.question(ctx, a)
		if err != nil {
			return "", err
		}
		d, err := p.Policy.Admission(ctx, in)
		if err != nil {
			return "", p.undecided(err)
		}
		a.Decision, a.PolicyDigest = &d, p.Policy.Digest()
	}
	a.forget()
	if err := p.refusal(a, a.Decision); err != nil {
		return "", err
	}
	if a.Decision.Action == policy.Admit {
		return Attesting, nil
	}
	return Sanitizing, p.sanitizable(a)
}

// refusal is what becomes of a model by a decision that denies or keeps it, which is recorded; nil by one that lets it go on.
func (p *Pipeline) refusal(a *Admission, d *policy.AdmissionDecision) error {
	if d.Action == policy.Sanitize || d.Action == policy.Admit {
		return nil
	}
	a.Decision = d
	if d.Action == policy.Quarantine {
		return held(p.obstacle(a), reasons(d.Reasons))
	}
	return &verdict{Denied, ReasonPolicyDenied, reasons(d.Reasons)}
}

// reconsider asks the policy about a model whose sanitizing was decided by another one, before the server's start. A run is worth hours: unless the model is to
// be denied or kept now, it goes on as it was begun.
func (p *Pipeline) reconsider(ctx context.Context, a *Admission) error {
	if a.PolicyDigest == p.Policy.Digest() {
		return nil
	}
	in, err := p.question(ctx, a)
	if err != nil {
		return err
	}
	a.PolicyDigest = p.Policy.Digest()
	d, err := p.Policy.Admission(ctx, in)
	if err != nil {
		return p.undecided(err)
	}
	return p.refusal(a, &d)
}

// obstacle finds the reason code for a policy that keeps a model in quarantine: what is plainly missing, else the policy's will.
func (p *Pipeline) obstacle(a *Admission) Reason {
	switch {
	case len(a.Source.OtherModels) > 0:
		return ReasonUnsupported
	case len(a.Source.Models) == 0 || a.Source.Problem != "":
		return ReasonNoModel
	case len(p.Datasets) == 0:
		return ReasonNoDataset
	}
	return ReasonPolicyHeld
}

// maxModels is how many models one package can have: each costs a training.
const maxModels = 64

// sanitizable returns a verdict where the package or the configuration does not allow what the policy decided.
func (p *Pipeline) sanitizable(a *Admission) error {
	switch s := a.Source; {
	case s.Problem != "":
		return held(ReasonNoModel, s.Problem)
	case len(s.Models) == 0:
		return held(ReasonNoModel, "the package holds no ONNX model: give a layer the title NAME.onnx")
	case len(s.targets()) > maxModels:
		return held(ReasonSeveralModels, fmt.Sprintf("the package holds %d ONNX models; no more than %d are taken in one package", len(s.targets()), maxModels))
	}
	name := a.Decision.Dataset
	if _, ok := p.Datasets[name]; !ok {
		return held(ReasonNoDataset, fmt.Sprintf("the clean dataset %q of the decision is not configured: set datasets.%s in the "+
			"configuration; the model is taken up again at the next start", name, name))
	}
	return nil
}

// undecided is the verdict when the policy cannot be evaluated. The kind of failure is told, its cause is logged by the policy.
func (p *Pipeline) undecided(err error) error {
	message := "the policy could not be evaluated"
	if e := (*policy.Error)(nil); errors.As(err, &e) {
		message = e.Kind.Error() + " (decision " + e.ID + ")"
	}
	return held(ReasonPolicyError, message)
}

func reasons(list []string) string {
	if len(list) == 0 {
		return "the policy gives no reason"
	}
	return printable(strings.Join(list, "; "), maxProblem) // the history has it, too
}
