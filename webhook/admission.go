package webhook

import (
	"slices"
	"strings"
	"time"

	"grindstone/policy"
	"grindstone/registry"
	"grindstone/sanitize"
)

// Admission is the record of one pushed model: what was pushed, what was decided, measured and signed, and what was released.
// It is the JSON of the API and of the files under state/admissions.
type Admission struct {
	SchemaVersion int       `json:"schema_version"` // 1
	ID            string    `json:"id"`             // UUID version 7: sorts by time
	State         State     `json:"state"`
	Reason        Reason    `json:"reason,omitempty"`  // denied and held only
	Message       string    `json:"message,omitempty"` // for people; never an internal cause
	Source        Source    `json:"source"`
	Tags          []Tag     `json:"tags"`
	PolicyDigest  string    `json:"policy_digest"`
	Attempts      int       `json:"attempts"` // sanitizer processes begun for the last run, without those that a graceful stop ended
	Runs          int       `json:"runs"`     // of the sanitizer that have a result
	CreatedAt     time.Time `json:"created_at"`
	UpdatedAt     time.Time `json:"updated_at"`

	Decision   *policy.AdmissionDecision `json:"decision,omitempty"`
	Report     *sanitize.Report          `json:"report,omitempty"`
	Further    []ModelResult             `json:"further_models,omitempty"` // what became of the models after the first
	Changed    []ChangedFile             `json:"changed_files,omitempty"`  // of the package, by the sanitizer
	Verdict    *policy.ReleaseDecision   `json:"release_decision,omitempty"`
	Twin       *Twin                     `json:"twin,omitempty"` // whose sanitized models these are, where it was not sanitized by itself
	Released   *Release                  `json:"released,omitempty"`
	Approval   *Operation                `json:"approval,omitempty"`   // an operator lets it pass without sanitizing
	Operations []Operation               `json:"operations,omitempty"` // all that operators decided, oldest first
	Unsent     bool                      `json:"unsent,omitempty"`     // the final state that it is in has not been given to the notifications yet
	History    []Change                  `json:"history"`
	Dropped    int                       `json:"history_dropped,omitempty"` // older entries that are no longer kept
}

// Source is the pushed package.
type Source struct {
	Repository   string            `json:"repository"`
	Digest       string            `json:"digest"`
	MediaType    string            `json:"media_type"`
	ArtifactType string            `json:"artifact_type,omitempty"`
	Identity     string            `json:"identity,omitempty"`    // who pushed, as far as the registry knows
	Size         int64             `json:"size"`                  // bytes, of the whole package
	Annotations  map[string]string `json:"annotations,omitempty"` // of the manifest, as far as they are kept
	// AnnotationsDropped is how many are not.
	AnnotationsDropped int `json:"annotations_dropped,omitempty"`

	Blobs       []string     `json:"blobs,omitempty"`   // digests of all content
	Subject     string       `json:"subject,omitempty"` // digest of the package that this one is attached to
	Models      []Model      `json:"models"`
	OtherModels []OtherModel `json:"other_models,omitempty"` // of formats that cannot be sanitized
	Problem     string       `json:"problem,omitempty"`      // why not every model could be found
}

// Model is an ONNX file of the package.
type Model struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	MediaType string `json:"media_type,omitempty"`
	Size      int64  `json:"size"`             // bytes
	SHA256    string `json:"sha256,omitempty"` // hex, where Digest is another one
}

// sha256 returns the SHA-256 digest of the file in hex.
func (m Model) sha256() string {
	if m.SHA256 != "" {
		return m.SHA256
	}
	return strings.TrimPrefix(m.Digest, "sha256:")
}

// OtherModel is a file of the package that is a model of another format than ONNX.
type OtherModel struct {
	Name   string `json:"name"`
	Format string `json:"format"`
}

// ChangedFile is a layer that the sanitizer wrote anew: the model, and the external data files that it keeps weights in.
type ChangedFile struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`          // of the pushed layer
	SHA256 string `json:"sha256"`          // hex, of the new file
	Model  int    `json:"model,omitempty"` // index of the model that it was written for
}

// Tag is one push of a tag. The highest Order among all admissions' pushes of a tag is the tag's current meaning.
type Tag struct {
	Name     string    `json:"name"`
	Order    uint64    `json:"order"`
	PushedAt time.Time `json:"pushed_at"`
	Moved    bool      `json:"moved"` // the tag was pointed at the released model
}

// Release is what deployers get.
type Release struct {
	Digest      string `json:"digest"` // of the released manifest
	MediaType   string `json:"media_type"`
	Size        int64  `json:"size"`
	Attestation string `json:"attestation,omitempty"` // digest of the referrer manifest that holds the sigstore bundle

	Registered *Registered `json:"registered,omitempty"` // in the model registry that it came from
}

// Change is one entry of the history: a state entered, when and why.
type Change struct {
	State   State     `json:"state"`
	Reason  Reason    `json:"reason,omitempty"`
	Message string    `json:"message,omitempty"`
	At      time.Time `json:"at"`
}

const maxHistory = 200 // entries kept

// enter records that the admission is now in state s.
func (a *Admission) enter(s State, r Reason, message string, at time.Time) {
	a.State, a.Reason, a.Message, a.UpdatedAt = s, r, message, at
	a.History = append(a.History, Change{State: s, Reason: r, Message: message, At: at})
	if over := len(a.History) - maxHistory; over > 0 {
		a.History = slices.Delete(a.History, 0, over)
		a.Dropped += over
	}
}

// again gives a held admission another try. What an operator approved stays approved.
func (a *Admission) again(message string, at time.Time) {
	a.Attempts = 0
	if a.Approval != nil {
		a.enter(Attesting, "", message, at)
		return
	}
	a.enter(Quarantined, "", message, at)
}

// takenUp records that a server has started that goes on with the admission, under the policy of that digest. Of what another policy decided, a run of the
// sanitizer and what came of it stay, and are reconsidered; what is signed and attached stays as it is; anything else is decided anew.
func (a *Admission) takenUp(policyDigest string, at time.Time) {
	const message = "taken up again at the server's start"
	changed := a.PolicyDigest != policyDigest && a.Approval == nil
	begun := a.State == Releasing || a.Decision != nil && a.Decision.Action == policy.Sanitize && a.State != Quarantined && a.State != Deciding
	switch {
	case a.State == Held:
		a.Decision = nil
		a.again(message, at)
	case changed && !begun:
		a.Decision, a.Verdict, a.Runs = nil, nil, a.Runs+1
		a.enter(Deciding, "", "the policy changed", at)
	case changed && a.State == Attesting:
		a.enter(Evaluating, "", "the policy changed", at)
		return
	default:
		a.enter(a.State, "", message, at)
		if changed {
			return
		}
	}
	a.PolicyDigest = policyDigest
}

// changes is the number of states entered so far.
func (a *Admission) changes() int { return a.Dropped + len(a.History) }

// pushed records a push of tag ("" is a push by digest, which moves no tag).
func (a *Admission) pushed(tag string, order uint64, at time.Time) {
	if tag == "" {
		return
	}
	a.Tags = slices.DeleteFunc(a.Tags, func(t Tag) bool { return t.Name == tag })
	a.Tags = append(a.Tags, Tag{Name: tag, Order: order, PushedAt: at})
}

// tag returns the name of the tag pushed last, or "".
func (a *Admission) tag() string {
	if len(a.Tags) == 0 {
		return ""
	}
	return a.Tags[len(a.Tags)-1].Name
}

func sourceOf(p registry.Push) Source {
	s := Source{
		Repository: p.Repository, Digest: p.Digest, MediaType: p.MediaType, ArtifactType: p.ArtifactType,
		Identity: p.Identity, Size: p.Size, Blobs: p.Blobs, Models: []Model{},
		Problem: p.Problem, Subject: p.Subject,
	}
	for _, m := range p.Models {
		s.Models = append(s.Models, Model{Name: m.Name, Digest: m.Digest, MediaType: m.MediaType, Size: m.Size, SHA256: m.SHA256})
	}
	for _, m := range p.OtherModels {
		s.OtherModels = append(s.OtherModels, OtherModel(m))
	}
	s.annotate(p.Annotations)
	return s
}
