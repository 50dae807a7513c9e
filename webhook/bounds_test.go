package webhook

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"grindstone/policy"
	"grindstone/webhook/pushevent"
)

// TestModelsOfAPackage: a package of as many models as are taken can be sanitized, one of more is held. The same model under two names counts once.
func TestModelsOfAPackage(t *testing.T) {
	p := &Pipeline{}
	p.Datasets = map[string]string{"default": "images"}
	for n, held := range map[int]bool{1: false, maxModels: false, maxModels + 1: true} {
		a := &Admission{Decision: &policy.AdmissionDecision{Action: policy.Sanitize, Dataset: "default"}}
		for i := range n {
			m := Model{Name: fmt.Sprintf("%d.onnx", i), Digest: fmt.Sprintf("sha256:%d", i)}
			a.Source.Models = append(a.Source.Models, m, Model{Name: "again/" + m.Name, Digest: m.Digest})
		}
		err := p.sanitizable(a)
		var v *verdict
		if held != (errors.As(err, &v) && v.Reason == ReasonSeveralModels) || !held && err != nil {
			t.Errorf("%d models: %v", n, err)
		}
	}
}

// TestOperationsAreBounded: one more operation than an admission can have is refused, and changes nothing.
func TestOperationsAreBounded(t *testing.T) {
	s := openStore(t, t.TempDir())
	p := &Pipeline{store: s}
	id := create(t, s, "m/a", "sha256:1", "v1").ID
	a, err := s.Update(id, func(a *Admission) {
		a.enter(Held, ReasonCrashed, "", time.Now())
		a.Operations = make([]Operation, maxOperations)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{OperationApprove, OperationReject, OperationRetry} {
		if _, err := p.Operate(t.Context(), id, action, "ada", "x"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "100 operations") {
			t.Errorf("%s: %v", action, err)
		}
	}
	if now, _ := s.Get(id); now.State != Held || now.changes() != a.changes() || len(now.Operations) != maxOperations {
		t.Errorf("%s, %d changes, %d operations", now.State, now.changes(), len(now.Operations))
	}
}

// TestWhatHasATagIsNotRejected: a release that failed after it had moved one of its tags can be finished, and not be denied any more.
func TestWhatHasATagIsNotRejected(t *testing.T) {
	for moved, refused := range map[bool]bool{true: true, false: false} {
		a := &Admission{State: Held, Tags: []Tag{{Name: "v1"}, {Name: "v2", Moved: moved}}}
		err := operations[OperationReject](a, &Operation{By: "ada", Reason: "x"})
		if errors.Is(err, ErrConflict) != refused || refused && !strings.Contains(err.Error(), "v2") || (a.State == Denied) == refused {
			t.Errorf("moved %v: %v, then %s", moved, err, a.State)
		}
	}
}

// TestEventsLeftOut: of the pushes that a registry tells of, this server's own releases are none of its business, nor are other refs and repositories.
func TestEventsLeftOut(t *testing.T) {
	everything := func(string) bool { return true }
	registry := Remote{Host: "registry.example"}
	for name, c := range map[string]struct {
		source EventSource
		pushed pushevent.Pushed
		why    string
	}{
		"a push":                       {EventSource{Matches: everything, Registry: registry, Release: registry, To: "released/"}, pushevent.Pushed{Repository: "in/m"}, ""},
		"a release":                    {EventSource{Matches: everything, Registry: registry, Release: registry, To: "released/"}, pushevent.Pushed{Repository: "released/in/m"}, "release of this server"},
		"of that name elsewhere":       {EventSource{Matches: everything, Registry: registry, Release: Remote{Host: "other.example"}, To: "released/"}, pushevent.Pushed{Repository: "released/in/m"}, ""},
		"nothing is released there":    {EventSource{Matches: everything, Registry: registry, To: "released/"}, pushevent.Pushed{Repository: "released/in/m"}, ""},
		"not configured":               {EventSource{Matches: func(r string) bool { return r == "in/m" }, Registry: registry}, pushevent.Pushed{Repository: "in/n"}, "repository is not configured"},
		"a branch of a hub":            {EventSource{Matches: everything, Hub: &ModelHub{Branch: "main"}}, pushevent.Pushed{Repository: "in/m", Ref: "refs/heads/main"}, ""},
		"another branch of a hub":      {EventSource{Matches: everything, Hub: &ModelHub{Branch: "main"}}, pushevent.Pushed{Repository: "in/m", Ref: "refs/heads/test"}, "another ref"},
		"a tag of a hub like a branch": {EventSource{Matches: everything, Hub: &ModelHub{Branch: "main"}}, pushevent.Pushed{Repository: "in/m", Ref: "refs/tags/main"}, "another ref"},
	} {
		p := &Pipeline{PipelineConfig: PipelineConfig{Events: []EventSource{c.source}}}
		if why := p.leavesOut(c.source, c.pushed); why != c.why {
			t.Errorf("%s: %q, want %q", name, why, c.why)
		}
	}
}

// TestTargetWants: a target is told of the states and of the repositories that it asks for, and without either of all.
func TestTargetWants(t *testing.T) {
	a := &Admission{State: Held, Source: Source{Repository: "models/a"}}
	of := func(repository string) func(string) bool { return func(r string) bool { return r == repository } }
	for name, c := range map[string]struct {
		target Target
		want   bool
	}{
		"everything":               {Target{}, true},
		"the state":                {Target{States: []State{Released, Held}}, true},
		"another state":            {Target{States: []State{Released}}, false},
		"the repository":           {Target{Matches: of("models/a")}, true},
		"another repository":       {Target{Matches: of("models/b")}, false},
		"state but not repository": {Target{States: []State{Held}, Matches: of("models/b")}, false},
	} {
		if got := c.target.wants(a); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
