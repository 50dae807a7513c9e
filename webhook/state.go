package webhook

import "strings"

// State says where an admission is. The state names the work to be done next, so a restart repeats it.
type State string

// The states in the order of the pipeline, then the two other ends.
const (
	Quarantined State = "quarantined" // the manifest is stored and hidden; waits for a worker
	Deciding    State = "deciding"    // asks the policy's admission question
	Sanitizing  State = "sanitizing"  // a sanitizer process works on the model
	Evaluating  State = "evaluating"  // asks the policy's release question, with the report
	Attesting   State = "attesting"   // writes the new package by digest, signs, attaches the attestation
	Releasing   State = "releasing"   // moves the tags
	Released    State = "released"    // final: the tag answers with the sanitized and attested model
	Denied      State = "denied"      // final: the policy refused the push
	Held        State = "held"        // final: stays in quarantine, for the reason given
)

// States lists every state in order, for metrics and documentation.
var States = []State{Quarantined, Deciding, Sanitizing, Evaluating, Attesting, Releasing, Released, Denied, Held}

// stateNames lists the states for people.
func stateNames() string {
	var names []string
	for _, s := range States {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// Final reports whether nothing more will happen to an admission in this state by itself.
func (s State) Final() bool { return s == Released || s == Denied || s == Held }

// Reason is the code of why an admission was denied or is held. A human message accompanies it in the record.
type Reason string

const (
	ReasonNoModel         Reason = "no-model"                 // the package holds no ONNX model
	ReasonSeveralModels   Reason = "several-models"           // the package's models cannot be sanitized together
	ReasonInvalidModel    Reason = "invalid-model"            // the model file, or the external data it names, cannot be read as ONNX
	ReasonUnsupported     Reason = "unsupported-model"        // the sanitizer cannot work on this graph
	ReasonUnreadable      Reason = "unreadable-package"       // the quarantined package cannot be read back or fails its digests
	ReasonPolicyDenied    Reason = "policy-denied"            // the admission policy denies
	ReasonRejected        Reason = "operator-rejected"        // an operator rejected it
	ReasonPolicyHeld      Reason = "policy-quarantine"        // the admission policy keeps the model in quarantine
	ReasonPolicyError     Reason = "policy-error"             // the policy could not be evaluated
	ReasonNoDataset       Reason = "no-dataset"               // no clean dataset is configured for the decision
	ReasonDataset         Reason = "dataset-unreadable"       // the clean dataset cannot be read or does not fit the model
	ReasonRuntime         Reason = "runtime-missing"          // the ONNX Runtime library was not found or cannot be used
	ReasonCrashed         Reason = "sanitizer-crashed"        // the sanitizer process died
	ReasonFailed          Reason = "sanitizer-failed"         // the sanitizer gave up and said why
	ReasonTimeout         Reason = "sanitizer-timeout"        // over the wall-clock limit
	ReasonOutOfMemory     Reason = "sanitizer-out-of-memory"  // over the memory limit
	ReasonInvalidOutput   Reason = "sanitizer-invalid-output" // the report is missing or does not describe the files
	ReasonAttempts        Reason = "too-many-attempts"        // sanitizing took the whole server down again and again
	ReasonAccuracy        Reason = "accuracy-at-chance"       // the model does not classify the clean dataset
	ReasonReleaseRejected Reason = "release-rejected"         // the release policy rejects the sanitized model
	ReasonInternal        Reason = "internal-error"           // the server could not do a step (disk, registry, key)
)

// configurable holds the reasons whose cause lies in the server's configuration or machine and not in the model. Models held
// for one of them are taken up again when the server starts.
var configurable = map[Reason]bool{
	ReasonNoDataset: true, ReasonDataset: true, ReasonRuntime: true, ReasonPolicyError: true, ReasonInternal: true,
}

// verdict is the error of a step that ends the way of a model. Any other error of a step is internal.
type verdict struct {
	State   State // Held or Denied
	Reason  Reason
	Message string
}

func (v *verdict) Error() string { return string(v.Reason) + ": " + v.Message }

func held(r Reason, message string) error { return &verdict{Held, r, message} }
