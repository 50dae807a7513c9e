package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"grindstone/registry"
)

// Operation is what an operator decided about an admission. It is part of the record, and of the log as "operator decision".
type Operation struct {
	ID     string    `json:"id"`     // UUID, also in the log and in the attestation of an approval
	Action string    `json:"action"` // OperationApprove, OperationReject or OperationRetry
	By     string    `json:"by"`     // the operator's identity
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// The operations.
const (
	OperationApprove = "approve" // release a held model as it was pushed, attested as approved and not as sanitized
	OperationReject  = "reject"  // deny a model that is held or in work, for good
	OperationRetry   = "retry"   // give a held or rejected model another try
)

// maxOperations is how many operations one admission can have: retries are bounded, and the record stays small.
const maxOperations = 100

var (
	// ErrConflict says that an operation does not fit the state that the admission is in.
	ErrConflict = errors.New("not in this state")
	// ErrReason says that an operation lacks the reason that it needs.
	ErrReason = errors.New("a reason is needed")
)

// operations say what each does to a record. A change that returns an error changes nothing.
var operations = map[string]func(*Admission, *Operation) error{
	OperationApprove: func(a *Admission, o *Operation) error {
		if a.State != Held {
			return fmt.Errorf("%w: it is %s, and only a held model can be approved", ErrConflict, a.State)
		}
		a.Approval, a.Attempts = o, 0
		a.enter(Attesting, "", fmt.Sprintf("approved without sanitizing by %s: %s", o.By, o.Reason), o.At)
		return nil
	},
	OperationReject: func(a *Admission, o *Operation) error {
		switch a.State {
		case Held, Quarantined, Deciding, Sanitizing, Evaluating:
		default:
			return fmt.Errorf("%w: it is %s, and what is being released or has ended cannot be rejected", ErrConflict, a.State)
		}
		if i := slices.IndexFunc(a.Tags, func(t Tag) bool { return t.Moved }); i >= 0 {
			return fmt.Errorf("%w: it has been released under the tag %s", ErrConflict, a.Tags[i].Name)
		}
		a.Approval, a.Runs = nil, a.Runs+1 // what a worker may still do is not for a retry
		a.enter(Denied, ReasonRejected, fmt.Sprintf("rejected by %s: %s", o.By, o.Reason), o.At)
		return nil
	},
	OperationRetry: func(a *Admission, o *Operation) error {
		if a.State != Held && a.Reason != ReasonRejected {
			return fmt.Errorf("%w: it is %s, and only a held or rejected model can be tried again", ErrConflict, a.State)
		}
		a.Decision, a.Verdict, a.Approval, a.Attempts = nil, nil, nil, 0
		message := "tried again by " + o.By
		if o.Reason != "" {
			message += ": " + o.Reason
		}
		a.enter(Quarantined, "", message, o.At)
		return nil
	},
}

// approvable returns a conflict where releasing a held index would fail. What else may be wrong with a package, its release finds.
func (p *Pipeline) approvable(ctx context.Context, id string) error {
	a, ok := p.store.Get(id)
	if !ok || a.State != Held || !slices.Contains(indexes, a.Source.MediaType) {
		return nil
	}
	if e := (*registry.IndexError)(nil); errors.As(p.registry.CheckIndex(ctx, a.Source.Repository, a.Source.Digest), &e) {
		return fmt.Errorf("%w: %s", ErrConflict, aboutIndex(e))
	}
	return nil
}

var indexes = []string{ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json"}

func aboutIndex(e *registry.IndexError) string {
	return "it is an index, and its manifest " + e.Manifest + " is not released as it was pushed: approve that first. A model that was sanitized has another digest: push an index of what is released"
}

// Operate carries out an operator's decision. The operator's role must have been checked. Errors are ErrNotFound, ErrReason, ErrConflict, or those
// of the disk.
func (p *Pipeline) Operate(ctx context.Context, id, action, by, reason string) (*Admission, error) {
	if reason == "" && action != OperationRetry {
		return nil, fmt.Errorf("%w to %s an admission", ErrReason, action)
	}
	if action == OperationApprove {
		if err := p.approvable(ctx, id); err != nil {
			return nil, err
		}
	}
	p.tags.Lock() // no tag moves meanwhile
	defer p.tags.Unlock()
	o := &Operation{ID: uuid.Must(uuid.NewV7()).String(), Action: action, By: by, Reason: reason, At: time.Now().UTC()}
	unwanted := ""
	a, err := p.store.Change(id, func(a *Admission) error {
		unwanted = a.jobKey()
		if len(a.Operations) >= maxOperations {
			return fmt.Errorf("%w: %d operations have been made on it", ErrConflict, len(a.Operations))
		}
		a.Operations = append(a.Operations, *o)
		return operations[action](a, o)
	})
	if err != nil {
		return nil, err
	}
	p.Log.Info("operator decision", "id", o.ID, "action", action, "operator", by, "reason", reason, "admission", id,
		"repository", a.Source.Repository, "digest", a.Source.Digest)
	p.announce(a)
	p.passing(action + " recorded")
	if a.State.Final() {
		p.yield(a)
		p.interrupt(id)
		p.withdraw(unwanted)
	} else {
		p.backlog.add(id)
	}
	return a, nil
}
