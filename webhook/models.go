package webhook

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"grindstone/policy"
	"grindstone/sanitize"
)

// A package may hold several ONNX models. They are sanitized one after the other, each by a sanitizer process of its own in a scratch folder
// of its own, and each is asked about by itself; what is released is the package with all of them replaced. The record's Report and Verdict are
// those of the first, Further those of the others.

// ModelResult is what became of a model of a package that holds several.
type ModelResult struct {
	Name    string                  `json:"name"`
	Report  *sanitize.Report        `json:"report"`
	Verdict *policy.ReleaseDecision `json:"release_decision,omitempty"`
}

// targets are the models that have to be sanitized: the same file under several names is one.
func (s *Source) targets() []Model {
	var all []Model
	for _, m := range s.Models {
		if !slices.ContainsFunc(all, func(other Model) bool { return other.Digest == m.Digest }) {
			all = append(all, m)
		}
	}
	return all
}

// through is how many models have been sanitized: the index of the next one in targets.
func (a *Admission) through() int {
	if a.Report == nil {
		return 0
	}
	return 1 + len(a.Further)
}

// next is the model to be sanitized now. Without one it begins anew.
func (a *Admission) next() Model {
	if a.through() >= len(a.Source.targets()) {
		a.forget()
	}
	return a.Source.targets()[a.through()]
}

// forget takes back what was sanitized: its files are gone, or were made by another decision.
func (a *Admission) forget() {
	a.Report, a.Further, a.Changed, a.Verdict, a.Twin = nil, nil, nil, nil, nil
}

// sanitized records the report about the next model.
func (a *Admission) sanitized(name string, r *sanitize.Report) {
	if a.Report == nil {
		a.Report = r
		return
	}
	a.Further = append(a.Further, ModelResult{Name: name, Report: r})
}

// results are what became of every model so far, in the order of targets.
func (a *Admission) results() []ModelResult {
	if a.Report == nil {
		return nil
	}
	return append([]ModelResult{{a.Source.targets()[0].Name, a.Report, a.Verdict}}, a.Further...)
}

// judged records the decision about the n-th model.
func (a *Admission) judged(n int, d *policy.ReleaseDecision) {
	if n > 0 {
		a.Further[n-1].Verdict = d
		return
	}
	a.Verdict = d
}

// changed records the files that the run for a model wrote, of which one at least must be another than what was pushed: the model, or external data where that
// holds all the weights. Two models can share a file only if it came out the same for both: it has one place
// in the released package. For the same reason a model that is there twice must not have external data, which differs by the folder.
func (a *Admission) changed(model Model, written, before []ChangedFile) error {
	if !slices.ContainsFunc(written, ChangedFile.differs) {
		return held(ReasonInvalidOutput, "the sanitizer's output is not usable: the model came back unchanged, and so did its external data")
	}
	for _, f := range written {
		for _, other := range before {
			if other.Digest == f.Digest && other.SHA256 != f.SHA256 {
				return held(ReasonSeveralModels, fmt.Sprintf("%s and another model of the package keep weights in the same file %q: push each with weights of its own", model.Name, f.Name))
			}
		}
	}
	twice := slices.ContainsFunc(a.Source.Models, func(m Model) bool { return m.Digest == model.Digest && m.Name != model.Name })
	if twice && len(written) > 1 {
		return held(ReasonSeveralModels, fmt.Sprintf("%s is in the package under several names, with weights in external data: push each by itself", model.Name))
	}
	for _, f := range written {
		known := slices.ContainsFunc(a.Changed, func(other ChangedFile) bool { return other.Digest == f.Digest })
		if !known && f.differs() {
			a.Changed = append(a.Changed, f)
		}
	}
	return nil
}

// differs reports whether the file is another than the pushed one.
func (f ChangedFile) differs() bool { return f.SHA256 != strings.TrimPrefix(f.Digest, "sha256:") }

// about names the model in a message about it, where there are several.
func (a *Admission) about(model, message string) string {
	if len(a.Source.targets()) > 1 {
		return model + ": " + message
	}
	return message
}

// ofModel names the model in a verdict about it.
func (a *Admission) ofModel(m Model, err error) error {
	if v := (*verdict)(nil); errors.As(err, &v) {
		return &verdict{v.State, v.Reason, a.about(m.Name, v.Message)}
	}
	return err
}
