package webhook

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"grindstone/attest"
	"grindstone/policy"
	"grindstone/sanitize"
)

// predicate says what was done to the models and what came of it, from the admission's record. The reports hold nothing of the
// transformations' secrets.
func (p *Pipeline) predicate(a *Admission) attest.Predicate {
	results := a.results()
	first := p.modelPredicate(a, results[0])
	predicate := attest.Predicate{
		Sanitizer: attest.Sanitizer{ID: attest.SanitizerID, Version: p.Version},
		Source: attest.Source{
			URI: p.uri(a.Source.Repository, a.Source.Digest), Digest: sha256Of(a.Source.Digest), MediaType: a.Source.MediaType, Annotations: first.Source,
			Referrers: p.referrers(a),
		},
		Transformation: first.Transformation, Training: first.Training, Runtime: first.Runtime, Metrics: first.Metrics,
		Policy:   attest.Policy{URI: p.Policy.URI(), Digest: sha256Of(a.Verdict.PolicyDigest)},
		Decision: first.Decision, StartedAt: first.StartedAt, FinishedAt: first.FinishedAt,
	}
	for _, r := range results[1:] {
		predicate.FurtherModels = append(predicate.FurtherModels, p.modelPredicate(a, r))
	}
	predicate.SchemaVersion = predicate.Version()
	return predicate
}

// maxReferrers is how many referrers an attestation lists: the first that were attached.
const maxReferrers = 256

// referrers are what the pusher of a package has attached to it, in the order of the pushes. It stays in quarantine.
func (p *Pipeline) referrers(a *Admission) []attest.Referrer {
	var all []attest.Referrer
	for _, r := range p.store.List(func(r *Admission) bool {
		return r.Source.Repository == a.Source.Repository && r.Source.Subject == a.Source.Digest && r.Source.Identity == a.Source.Identity && r.State != Denied
	}) {
		referrer := attest.Referrer{Digest: sha256Of(r.Source.Digest), MediaType: r.Source.MediaType, ArtifactType: r.Source.ArtifactType}
		named := strings.HasPrefix(r.Source.Digest, "sha256:")
		if named && len(all) < maxReferrers && !slices.Contains(all, referrer) { // there may be several admissions of one
			all = append(all, referrer)
		}
	}
	return all
}

// modelPredicate is what is said of one model.
func (p *Pipeline) modelPredicate(a *Admission, m ModelResult) attest.FurtherModel {
	r, h := m.Report, m.Report.Hyperparameters
	dataset := sha256Of(r.Dataset.Digest)
	model := attest.FurtherModel{
		Name:           m.Name,
		Source:         attest.SourceAnnotations{ONNXSHA256: r.Source.SHA256},
		Transformation: attest.Transformation{Method: r.Method, Type: r.Transformation, SecretDiscarded: r.SecretDiscarded},
		Training: attest.Training{
			Hyperparameters: attest.Hyperparameters{
				Epochs: h.Epochs, GrindEpochs: h.GrindEpochs, Steps: int64(h.Steps), GrindSteps: int64(h.GrindSteps), BatchSize: int64(h.BatchSize),
				Optimizer: h.Optimizer, Schedule: h.Schedule, LearningRate: decimal(h.LearningRate), Momentum: decimal(h.Momentum),
				WeightDecay: decimal(h.WeightDecay), AlphaGrind: decimal(h.AlphaGrind), AlphaRestore: decimal(h.AlphaRestore),
			},
			Datasets: []attest.Dataset{{
				Name: a.Decision.Dataset, Digest: dataset,
				Annotations: attest.DatasetAnnotations{
					Samples: int64(r.Dataset.Train), HeldOut: int64(r.Dataset.HeldOut), Classes: int64(r.Dataset.Classes),
				},
			}},
		},
		Runtime: attest.Runtime{
			Engine: r.Runtime.Engine, Version: r.Runtime.Version, ExecutionProvider: r.Runtime.Provider, Device: r.Runtime.Device,
		},
		Metrics: attest.Metrics{
			Dataset: attest.MetricsDataset{Digest: dataset}, Before: accuracy(r.Before.CDA), After: accuracy(r.After.CDA),
		},
		Decision:  attest.Decision{ID: m.Verdict.ID, AdmissionID: a.Decision.ID, Result: attest.Passed},
		StartedAt: r.StartedAt, FinishedAt: r.FinishedAt,
	}
	for _, c := range m.Verdict.Claims {
		model.Metrics.Claims = append(model.Metrics.Claims, attest.Claim(c))
	}
	return model
}

// Unsanitized reports whether the model is released as it was pushed.
func (a *Admission) Unsanitized() bool {
	return a.Approval != nil || a.Decision != nil && a.Decision.Action == policy.Admit
}

// approval says who let the model pass without sanitizing.
func (p *Pipeline) approval(a *Admission) attest.Approval {
	approval := attest.Approval{
		Approver: attest.Approver{Kind: attest.ByPolicy},
		Reason:   "the policy admits it",
		Source: attest.ApprovedSource{ // the same bytes as what is released, whatever digest they were pushed by
			URI: p.uri(a.Source.Repository, a.Source.Digest), Digest: sha256Of(a.Released.Digest), MediaType: a.Source.MediaType, Referrers: p.referrers(a),
		},
		Policy:     attest.Policy{URI: p.Policy.URI(), Digest: sha256Of(p.Policy.Digest())},
		Decision:   attest.Decision{Result: attest.Approved},
		Issuer:     attest.Sanitizer{ID: attest.SanitizerID, Version: p.Version},
		ApprovedAt: time.Now(),
	}
	if d := a.Decision; d != nil {
		approval.Decision.ID, approval.Decision.AdmissionID = d.ID, d.ID
		if len(d.Reasons) > 0 {
			approval.Reason = reasons(d.Reasons)
		}
	}
	if o := a.Approval; o != nil {
		approval.Approver = attest.Approver{Kind: attest.ByOperator, Identity: o.By}
		approval.Reason, approval.Decision.ID, approval.ApprovedAt = o.Reason, o.ID, o.At
	}
	approval.SchemaVersion = approval.Version()
	return approval
}

func accuracy(r sanitize.Rate) attest.Accuracy {
	return attest.Accuracy{Accuracy: r.Value, Correct: int64(r.Hits), Samples: int64(r.Count), Low: r.Low, High: r.High}
}

func sha256Of(digest string) attest.Digest {
	return attest.Digest{SHA256: strings.TrimPrefix(digest, "sha256:")}
}

// decimal writes a number exactly.
func decimal(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
