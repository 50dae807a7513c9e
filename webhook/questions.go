package webhook

import (
	"context"
	"time"

	"grindstone/policy"
)

// AdmissionInput is the policy's first question about the package, with what the record keeps of the push. datasets are the names of the
// configured ones, sorted.
func (a *Admission) AdmissionInput(datasets []string) policy.AdmissionInput {
	return a.Source.admissionInput(a.tag(), a.pushedAt(), datasets)
}

// question is AdmissionInput with all annotations, also those that the record leaves out: a policy that refuses something for what one says must find it again.
func (p *Pipeline) question(ctx context.Context, a *Admission) (policy.AdmissionInput, error) {
	in := a.AdmissionInput(p.datasetNames())
	if a.Source.AnnotationsDropped == 0 {
		return in, nil
	}
	var err error
	if in.Annotations, err = p.registry.Annotations(ctx, a.Source.Repository, a.Source.Digest); err != nil {
		return in, p.unreadable(a, err)
	}
	return in, nil
}

// ReleaseInputs are the second question about every model that has been sanitized so far, in the order of the models.
func (a *Admission) ReleaseInputs(datasets []string) []policy.ReleaseInput {
	var all []policy.ReleaseInput
	if a.Decision == nil {
		return nil // it is to be decided anew
	}
	for _, r := range a.results() {
		all = append(all, policy.ReleaseInput{Admission: a.AdmissionInput(datasets), Decision: *a.Decision, Report: r.Report})
	}
	return all
}

// pushedAt is when the push came that counts, the last one of a tag.
func (a *Admission) pushedAt() time.Time {
	if len(a.Tags) == 0 {
		return a.CreatedAt
	}
	return a.Tags[len(a.Tags)-1].PushedAt
}

func (s *Source) admissionInput(tag string, at time.Time, datasets []string) policy.AdmissionInput {
	in := policy.AdmissionInput{
		Repository: s.Repository, Tag: tag, Digest: s.Digest, MediaType: s.MediaType, ArtifactType: s.ArtifactType,
		Identity: s.Identity, Size: s.Size, Annotations: s.Annotations, Datasets: datasets, Problem: s.Problem, Time: at,
	}
	for _, m := range s.Models {
		in.Models = append(in.Models, policy.Model{Name: m.Name, Digest: m.Digest, Size: m.Size})
	}
	for _, m := range s.OtherModels {
		in.OtherModels = append(in.OtherModels, policy.OtherModel(m))
	}
	return in
}
