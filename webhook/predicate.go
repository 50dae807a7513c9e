package webhook

import (
	"strconv"
	"strings"
	"time"

	"grindstone/attest"
	"grindstone/policy"
	"grindstone/sanitize"
)

// predicate says what was done to the model and what came of it, from the admission's record. The report holds nothing of the
// transformation's secret.
func (p *Pipeline) predicate(a *Admission) attest.Predicate {
	r, h := a.Report, a.Report.Hyperparameters
	dataset := sha256Of(r.Dataset.Digest)
	predicate := attest.Predicate{
		SchemaVersion: attest.SchemaVersion,
		Sanitizer:     attest.Sanitizer{ID: attest.SanitizerID, Version: p.Version},
		Source: attest.Source{
			URI: p.uri(a.Source.Repository, a.Source.Digest), Digest: sha256Of(a.Source.Digest), MediaType: a.Source.MediaType,
			Annotations: attest.SourceAnnotations{ONNXSHA256: r.Source.SHA256},
		},
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
		Policy:    attest.Policy{URI: p.Policy.URI(), Digest: sha256Of(a.Verdict.PolicyDigest)},
		Decision:  attest.Decision{ID: a.Verdict.ID, AdmissionID: a.Decision.ID, Result: attest.Passed},
		StartedAt: r.StartedAt, FinishedAt: r.FinishedAt,
	}
	for _, c := range a.Verdict.Claims {
		predicate.Metrics.Claims = append(predicate.Metrics.Claims, attest.Claim(c))
	}
	return predicate
}

// Unsanitized reports whether the model is released as it was pushed.
func (a *Admission) Unsanitized() bool {
	return a.Approval != nil || a.Decision != nil && a.Decision.Action == policy.Admit
}

// approval says who let the model pass without sanitizing.
func (p *Pipeline) approval(a *Admission) attest.Approval {
	approval := attest.Approval{
		SchemaVersion: attest.SchemaVersion,
		Approver:      attest.Approver{Kind: attest.ByPolicy},
		Reason:        "the policy admits it",
		Source:        attest.ApprovedSource{URI: p.uri(a.Source.Repository, a.Source.Digest), Digest: sha256Of(a.Source.Digest), MediaType: a.Source.MediaType},
		Policy:        attest.Policy{URI: p.Policy.URI(), Digest: sha256Of(p.Policy.Digest())},
		Decision:      attest.Decision{Result: attest.Approved},
		Issuer:        attest.Sanitizer{ID: attest.SanitizerID, Version: p.Version},
		ApprovedAt:    time.Now(),
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
