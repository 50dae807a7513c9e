package attest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// PredicateType is the URI of the predicate, with its major version.
const PredicateType = "https://grindstone.dev/sanitized-model/v1"

// SchemaVersion is the version of the predicates' fields: the least that has those that are used. A predicate about several models has
// SchemaVersionSeveral, one that lists referrers SchemaVersionReferrers, whatever it is about.
const (
	SchemaVersion          = "1.0"
	SchemaVersionSeveral   = "1.1"
	SchemaVersionReferrers = "1.2"
)

// SanitizerID identifies the kind of sanitizer.
const SanitizerID = "https://grindstone.dev/sanitizer/v1"

// ErrPredicate: a predicate is incomplete, contradicts itself, or is not in its strict JSON form.
var ErrPredicate = errors.New("attestation predicate")

// Predicate says what was done to a model and what came of it. It names the kind of the transformation and has no field that
// could hold its secret, nor anything derived from it. Integers stay below 2^53; decimals that matter exactly are text.
type Predicate struct {
	SchemaVersion  string         `json:"schemaVersion"` // as Version says
	Sanitizer      Sanitizer      `json:"sanitizer"`
	Source         Source         `json:"source"` // the package as it was pushed
	Transformation Transformation `json:"transformation"`
	Training       Training       `json:"training"`
	Runtime        Runtime        `json:"runtime"`
	Metrics        Metrics        `json:"metrics"`
	Policy         Policy         `json:"policy"`
	Decision       Decision       `json:"decision"`
	StartedAt      time.Time      `json:"startedAt"` // UTC
	FinishedAt     time.Time      `json:"finishedAt"`

	FurtherModels []FurtherModel `json:"furtherModels,omitempty"` // of a package that holds several; the fields above are about the first
}

// FurtherModel says of one more model of the package what the predicate says of the first.
type FurtherModel struct {
	Name           string            `json:"name"`   // of the file in the package
	Source         SourceAnnotations `json:"source"` // its pushed file
	Transformation Transformation    `json:"transformation"`
	Training       Training          `json:"training"`
	Runtime        Runtime           `json:"runtime"`
	Metrics        Metrics           `json:"metrics"`
	Decision       Decision          `json:"decision"`
	StartedAt      time.Time         `json:"startedAt"` // UTC
	FinishedAt     time.Time         `json:"finishedAt"`
}

// Version is the schema version that the predicate's fields need.
func (p *Predicate) Version() string {
	switch {
	case len(p.Source.Referrers) > 0:
		return SchemaVersionReferrers
	case len(p.FurtherModels) > 0:
		return SchemaVersionSeveral
	}
	return SchemaVersion
}

// models are all models of the package, the first as the others are.
func (p *Predicate) models() []FurtherModel {
	return append([]FurtherModel{{"", p.Source.Annotations, p.Transformation, p.Training, p.Runtime, p.Metrics, p.Decision, p.StartedAt, p.FinishedAt}}, p.FurtherModels...)
}

// Sanitizer is the program that did it.
type Sanitizer struct {
	ID      string  `json:"id"` // SanitizerID
	Version Version `json:"version"`
}

// Version is the program's version and source revision.
type Version struct {
	Grindstone string `json:"grindstone"`
	Commit     string `json:"commit,omitempty"`
}

// Source is the pushed package.
type Source struct {
	URI         string            `json:"uri"`    // oci://host/repository@sha256:...
	Digest      Digest            `json:"digest"` // of the pushed manifest
	MediaType   string            `json:"mediaType"`
	Annotations SourceAnnotations `json:"annotations"`
	Referrers   []Referrer        `json:"referrers,omitempty"`
}

// Referrer is an artifact that whoever pushed a package had attached to it (subject) before it was released. It stays in quarantine with
// the package: nothing is said about what it claims.
type Referrer struct {
	Digest       Digest `json:"digest"` // of its manifest
	MediaType    string `json:"mediaType"`
	ArtifactType string `json:"artifactType,omitempty"`
}

// checkReferrers finds what is wrong in a list of referrers.
func checkReferrers(all []Referrer, need func(ok bool, format string, args ...any)) {
	for i, r := range all {
		need(hexSHA256.MatchString(r.Digest.SHA256), "source.referrers[%d].digest is %q, want sha256 as 64 lower-case hex digits", i, r.Digest.SHA256)
		need(r.MediaType != "", "source.referrers[%d].mediaType is missing", i)
	}
}

// SourceAnnotations tell the pushed model's file.
type SourceAnnotations struct {
	ONNXSHA256 string `json:"onnxSha256"` // hex
}

// Transformation is the method and the kind of the secret feature transformation.
type Transformation struct {
	Method          string `json:"method"`          // "feature-grinding"
	Type            string `json:"type"`            // permute, rotate or rotate-2d
	SecretDisclosed bool   `json:"secretDisclosed"` // always false
	SecretDiscarded bool   `json:"secretDiscarded"` // always true
}

// Training is how the model was ground and restored.
type Training struct {
	Hyperparameters Hyperparameters `json:"hyperparameters"`
	Datasets        []Dataset       `json:"datasets"`
}

// Hyperparameters are the run's settings after defaults and search. The seed is not among them.
type Hyperparameters struct {
	Epochs       float64 `json:"epochs"`
	GrindEpochs  float64 `json:"grindEpochs"`
	Steps        int64   `json:"steps"`
	GrindSteps   int64   `json:"grindSteps"`
	BatchSize    int64   `json:"batchSize"`
	Optimizer    string  `json:"optimizer"`
	Schedule     string  `json:"schedule"`
	LearningRate string  `json:"learningRate"` // decimal
	Momentum     string  `json:"momentum"`     // decimal
	WeightDecay  string  `json:"weightDecay"`  // decimal
	AlphaGrind   string  `json:"alphaGrind"`   // decimal
	AlphaRestore string  `json:"alphaRestore"` // decimal
}

// Dataset identifies clean data.
type Dataset struct {
	Name        string             `json:"name"`
	Digest      Digest             `json:"digest"`
	Annotations DatasetAnnotations `json:"annotations"`
}

// DatasetAnnotations are counts.
type DatasetAnnotations struct {
	Samples int64 `json:"samples"` // images trained on
	HeldOut int64 `json:"heldOut"` // images measured on
	Classes int64 `json:"classes"`
}

// Runtime is what the training ran on.
type Runtime struct {
	Engine            string `json:"engine"` // "onnxruntime"
	Version           string `json:"version"`
	ExecutionProvider string `json:"executionProvider"`
	Device            string `json:"device,omitempty"`
}

// Metrics compare the pushed with the sanitized model on held-out clean images.
type Metrics struct {
	Dataset MetricsDataset `json:"dataset"`
	Before  Accuracy       `json:"before"`
	After   Accuracy       `json:"after"`
	Claims  []Claim        `json:"claims"`
}

// MetricsDataset is the dataset that was measured on.
type MetricsDataset struct {
	Digest Digest `json:"digest"`
}

// Accuracy is a share with its 95 % interval.
type Accuracy struct {
	Accuracy float64 `json:"accuracy"` // 0..1
	Correct  int64   `json:"correct"`
	Samples  int64   `json:"samples"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
}

// Claim is one comparison that the release policy made: value comparator threshold, as decimal text.
type Claim struct {
	Metric     string `json:"metric"`
	Comparator string `json:"comparator"`
	Threshold  string `json:"threshold"`
	Value      string `json:"value"`
	Passed     bool   `json:"passed"`
}

// Policy is the policy that decided.
type Policy struct {
	URI    string `json:"uri"`
	Digest Digest `json:"digest"`
}

// Decision is the release decision.
type Decision struct {
	ID          string `json:"id"`          // of the release decision, as logged
	AdmissionID string `json:"admissionId"` // of the admission decision, as logged
	Result      string `json:"result"`      // "PASSED"
}

// Passed is the only result that is attested.
const Passed = "PASSED"

// ParsePredicate reads a predicate in its strict form: every name exact and once, nothing unknown, no null; and Validate.
func ParsePredicate(data []byte) (*Predicate, error) {
	var p Predicate
	if err := unmarshalStrict(data, &p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPredicate, err)
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &p, nil
}

// normal has UTC times in whole seconds and a list where there are no claims.
func (p Predicate) normal() Predicate {
	p.StartedAt, p.FinishedAt = p.StartedAt.UTC().Truncate(time.Second), p.FinishedAt.UTC().Truncate(time.Second)
	if p.Metrics.Claims == nil {
		p.Metrics.Claims = []Claim{}
	}
	p.FurtherModels = slices.Clone(p.FurtherModels)
	for i := range p.FurtherModels {
		m := &p.FurtherModels[i]
		m.StartedAt, m.FinishedAt = m.StartedAt.UTC().Truncate(time.Second), m.FinishedAt.UTC().Truncate(time.Second)
		if m.Metrics.Claims == nil {
			m.Metrics.Claims = []Claim{}
		}
	}
	return p
}

// Validate reports everything that is missing or contradictory, as ErrPredicate. What failed a claim or was not decided PASSED is
// well formed: a verifier refuses it for what it says.
func (p *Predicate) Validate() error {
	var all []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			all = append(all, fmt.Errorf(format, args...))
		}
	}
	for name, value := range map[string]string{
		"sanitizer.version.grindstone": p.Sanitizer.Version.Grindstone, "source.uri": p.Source.URI, "source.mediaType": p.Source.MediaType, "policy.uri": p.Policy.URI,
	} {
		need(value != "", "%s is missing", name)
	}
	need(p.SchemaVersion == p.Version(), "schemaVersion is %q, want %s", p.SchemaVersion, p.Version())
	checkReferrers(p.Source.Referrers, need)
	need(p.Sanitizer.ID == SanitizerID, "sanitizer.id is %q, want %s", p.Sanitizer.ID, SanitizerID)
	for name, value := range map[string]string{"source.digest": p.Source.Digest.SHA256, "policy.digest": p.Policy.Digest.SHA256} {
		need(hexSHA256.MatchString(value), "%s is %q, want sha256 as 64 lower-case hex digits", name, value)
	}
	for i, m := range p.models() {
		at, source := "", "source.annotations"
		if i > 0 {
			at = fmt.Sprintf("furtherModels[%d].", i-1)
			source = at + "source"
			need(m.Name != "", "%sname is missing", at)
		}
		need(hexSHA256.MatchString(m.Source.ONNXSHA256), "%s.onnxSha256 is %q, want sha256 as 64 lower-case hex digits", source, m.Source.ONNXSHA256)
		m.validate(at, need)
	}
	if len(all) > 0 {
		return fmt.Errorf("%w: %w", ErrPredicate, errors.Join(all...))
	}
	return nil
}

// validate tells need what is missing or contradictory about one model, whose fields are at a place.
func (m *FurtherModel) validate(at string, need func(ok bool, format string, args ...any)) {
	for name, value := range map[string]string{
		"transformation.method": m.Transformation.Method, "transformation.type": m.Transformation.Type,
		"runtime.engine": m.Runtime.Engine, "runtime.version": m.Runtime.Version, "runtime.executionProvider": m.Runtime.ExecutionProvider,
		"training.hyperparameters.optimizer": m.Training.Hyperparameters.Optimizer, "training.hyperparameters.learningRate": m.Training.Hyperparameters.LearningRate,
		"decision.id": m.Decision.ID, "decision.result": m.Decision.Result,
	} {
		need(value != "", "%s%s is missing", at, name)
	}
	need(!m.Transformation.SecretDisclosed, "%stransformation.secretDisclosed is true", at)
	need(m.Transformation.SecretDiscarded, "%stransformation.secretDiscarded is not true", at)
	digests := map[string]string{"metrics.dataset.digest": m.Metrics.Dataset.Digest.SHA256}
	need(len(m.Training.Datasets) > 0, "%straining.datasets is empty", at)
	for i, d := range m.Training.Datasets {
		need(d.Name != "", "%straining.datasets[%d].name is missing", at, i)
		digests[fmt.Sprintf("training.datasets[%d].digest", i)] = d.Digest.SHA256
	}
	for name, value := range digests {
		need(hexSHA256.MatchString(value), "%s%s is %q, want sha256 as 64 lower-case hex digits", at, name, value)
	}
	for name, a := range map[string]Accuracy{"metrics.before": m.Metrics.Before, "metrics.after": m.Metrics.After} {
		need(a.Accuracy >= 0 && a.Accuracy <= 1 && !math.IsNaN(a.Accuracy), "%s%s.accuracy is %v, want 0..1", at, name, a.Accuracy)
		need(a.Samples > 0 && a.Correct >= 0 && a.Correct <= a.Samples, "%s%s has %d of %d correct", at, name, a.Correct, a.Samples)
	}
	need(m.Metrics.Claims != nil, "%smetrics.claims is missing", at)
	for _, t := range []time.Time{m.StartedAt, m.FinishedAt} {
		_, offset := t.Zone()
		need(!t.IsZero() && offset == 0, "%sstartedAt and finishedAt must be given, in UTC", at)
	}
	need(!m.FinishedAt.Before(m.StartedAt), "%sfinishedAt is before startedAt", at)
}
