package webhook

import (
	"context"
	"reflect"
	"time"

	"grindstone/policy"
	"grindstone/registry"
)

// Admit records a push and queues it. The policy is asked at once: a denial needs no sanitizing and is answered to the client.
// A policy that cannot be evaluated is left to the deciding step, which holds the model.
//
// Pushing the same model again joins the admission under way or released, as long as policy and decision are the same; after a
// denial or a hold it is a new admission.
func (p *Pipeline) Admit(ctx context.Context, push registry.Push) (*registry.Denial, error) {
	p.tags.Lock()
	defer p.tags.Unlock()
	src := sourceOf(push)
	decision, err := p.Policy.Admission(ctx, p.admissionInput(src, push.Tag))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p.Log.Warn("the admission policy could not be evaluated", "repository", push.Repository, "digest", push.Digest, "error", err)
	}
	decided := err == nil

	if a, ok := p.store.Newest(push.Repository, push.Digest); ok && decided && p.joins(a, decision) {
		if a, err = p.store.Repush(a.ID, push.Tag); err != nil {
			return nil, err
		}
		p.announce(a)
		p.queue.add(a.ID)
		return nil, nil
	}
	a, err := p.store.Create(src, push.Tag, p.Policy.Digest(), func(a *Admission) {
		if !decided {
			return
		}
		a.Decision = &decision
		if decision.Action == policy.Deny {
			a.enter(Denied, ReasonPolicyDenied, reasons(decision.Reasons), time.Now().UTC())
		}
	})
	if err != nil {
		return nil, err
	}
	p.announce(a)
	p.passing("quarantined recorded")
	if a.State == Denied {
		return &registry.Denial{ID: a.ID, Reasons: decision.Reasons}, nil
	}
	p.queue.add(a.ID)
	return nil, nil
}

// joins reports whether a push with this decision is one more push of what a already carries.
func (p *Pipeline) joins(a *Admission, d policy.AdmissionDecision) bool {
	if a.State == Denied || a.State == Held || a.PolicyDigest != p.Policy.Digest() || a.Decision == nil {
		return false
	}
	old := *a.Decision
	old.ID, old.Reasons, d.ID, d.Reasons = "", nil, "", nil
	return reflect.DeepEqual(old, d)
}

// Status tells the registry's clients why they cannot see a reference: a tag or a digest that was pushed.
func (p *Pipeline) Status(repository, reference string) (registry.Status, bool) {
	a, ok := p.store.Get(p.store.Owner(repository, reference))
	if !ok {
		a, ok = p.store.Newest(repository, reference)
	}
	if !ok {
		return registry.Status{}, false
	}
	s := registry.Status{ID: a.ID, State: string(a.State), Reason: a.Message}
	if a.State == Released && a.Released != nil && a.Released.Digest != reference {
		s.Reason = "the sanitized model is " + a.Released.Digest
	}
	return s, true
}

func (p *Pipeline) admissionInput(s Source, tag string) policy.AdmissionInput {
	in := policy.AdmissionInput{
		Repository: s.Repository, Tag: tag, Digest: s.Digest, MediaType: s.MediaType, ArtifactType: s.ArtifactType,
		Identity: s.Identity, Size: s.Size, Annotations: s.Annotations, Datasets: p.datasetNames(), Problem: s.Problem, Time: time.Now().UTC(),
	}
	for _, m := range s.Models {
		in.Models = append(in.Models, policy.Model{Name: m.Name, Digest: m.Digest, Size: m.Size})
	}
	return in
}
