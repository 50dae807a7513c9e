package webhook

import (
	"context"
	"slices"
	"time"

	"grindstone/policy"
	"grindstone/registry"
)

// Admit records a push and queues it. The policy is asked at once: a denial needs no sanitizing and is answered to the client.
// A policy that cannot be evaluated is left to the deciding step, which holds the model.
//
// There is one admission for a package in a repository under one policy and decision. Pushing the package again joins it: what is under
// way or released gets one more tag, what is held another try, what is denied the same answer. What an operator rejected is denied for its models' sake.
func (p *Pipeline) Admit(ctx context.Context, push registry.Push) (*registry.Denial, error) {
	src := sourceOf(push)
	in := src.admissionInput(push.Tag, time.Now(), p.datasetNames())
	in.Annotations = push.Annotations // also those that the record leaves out
	var decision *policy.AdmissionDecision
	if d, err := p.Policy.Admission(ctx, in); err == nil {
		decision = &d
	} else if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	a, err := p.record(src, push.Tag, decision)
	if err != nil {
		return nil, err
	}
	p.passing("quarantined recorded")
	if a.State == Denied {
		return &registry.Denial{ID: a.ID, Reasons: a.denialReasons()}, nil
	}
	p.backlog.add(a.ID)
	if a.Unsanitized() {
		p.pass(ctx, a.ID)
	}
	return nil, nil
}

// pass releases what needs no sanitizing while its pusher waits for the answer, so that a client that reads back what it pushed, to tag it,
// finds it. What is not released within passLimit goes on after the answer.
func (p *Pipeline) pass(ctx context.Context, id string) {
	if !p.backlog.claim(id) {
		return // somebody works on it
	}
	defer p.backlog.done(id)
	ctx, cancel := context.WithTimeout(ctx, passLimit)
	defer cancel()
	p.process(ctx, id)
	if a, ok := p.store.Get(id); ok && !a.State.Final() {
		p.backlog.add(id)
	}
}

const passLimit = 10 * time.Second

// record writes a push with its decision (nil: none yet) into the admission that it joins, or into a new one.
func (p *Pipeline) record(src Source, tag string, decision *policy.AdmissionDecision) (*Admission, error) {
	p.tags.Lock()
	defer p.tags.Unlock()
	if a, ok := p.rejected(src); ok { // by a person, whatever the policy says today
		return a, nil
	}
	a, ok := p.store.Newest(src.Repository, src.Digest)
	made, sanitized := p.store.releasedAs(src.Repository, src.Digest)
	var err error
	switch {
	case !ok && sanitized && decision != nil && decision.Action != policy.Deny:
		a, err = p.store.Repush(made.ID, tag)
	case !ok || a.PolicyDigest != p.Policy.Digest() || !sameDecision(a.Decision, decision):
		a, err = p.store.Create(src, tag, p.Policy.Digest(), func(a *Admission) {
			a.Decision = decision
			if decision != nil && decision.Action == policy.Deny {
				a.enter(Denied, ReasonPolicyDenied, reasons(decision.Reasons), time.Now().UTC())
			}
		})
	case a.State == Denied:
		return a, nil
	default:
		a, err = p.store.Repush(a.ID, tag)
	}
	if err != nil {
		return nil, err
	}
	p.announce(a)
	return a, nil
}

// rejected returns the newest admission of a repository that an operator rejected, of the same package or of another one with one of its models: clients make a
// new package of the same file at every push, by the time that they write into it.
func (p *Pipeline) rejected(src Source) (*Admission, bool) {
	list := p.store.List(func(a *Admission) bool {
		return a.State == Denied && a.Reason == ReasonRejected && a.Source.Repository == src.Repository &&
			(a.Source.Digest == src.Digest || a.Source.sharesModel(src))
	})
	if len(list) == 0 {
		return nil, false
	}
	return list[len(list)-1], true
}

// sharesModel reports whether a model file of the package is one of another's.
func (s *Source) sharesModel(other Source) bool {
	return slices.ContainsFunc(s.Models, func(m Model) bool {
		return slices.ContainsFunc(other.Models, func(o Model) bool { return o.sha256() == m.sha256() })
	})
}

// denialReasons are what a client is told whose push is denied.
func (a *Admission) denialReasons() []string {
	if a.Reason == ReasonPolicyDenied && a.Decision != nil {
		return a.Decision.Reasons
	}
	return []string{a.Message}
}

// sameDecision compares what two decisions say.
func sameDecision(a, b *policy.AdmissionDecision) bool {
	return sameAction(a, b) && (a == nil || slices.Equal(a.Reasons, b.Reasons))
}

// sameAction compares what two decisions have done, whatever their reasons.
func sameAction(a, b *policy.AdmissionDecision) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Action == b.Action && a.Method == b.Method && a.Transformation == b.Transformation && a.Dataset == b.Dataset && a.Parameters == b.Parameters
}

// Status tells the registry's clients why they cannot see a reference: a tag, or the digest of a manifest or blob that was pushed.
func (p *Pipeline) Status(repository, reference string) (registry.Status, bool) {
	a, ok := p.store.Get(p.store.Owner(repository, reference))
	if !ok {
		a, ok = p.store.Newest(repository, reference)
	}
	if !ok {
		a, ok = p.store.newestWith(repository, reference)
	}
	if !ok {
		return registry.Status{}, false
	}
	s := registry.Status{ID: a.ID, State: string(a.State), Reason: a.Message}
	if a.State == Released && a.Released != nil && a.Released.Digest != reference {
		s.Reason = "the sanitized model is " + a.Released.Digest
		if a.Unsanitized() {
			s.Reason = "it is released as " + a.Released.Digest
		}
	}
	return s, true
}
