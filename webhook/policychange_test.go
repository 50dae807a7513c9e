package webhook

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"grindstone/attest"
)

// policies writes a policy that answers every push and every report alike.
func policies(t *testing.T, admission, release string) string {
	t.Helper()
	dir := t.TempDir()
	for name, decision := range map[string]string{"admission": admission, "release": release} {
		if err := os.WriteFile(filepath.Join(dir, name+".rego"), []byte("package grindstone."+name+"\ndecision := "+decision+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	sanitizesOtherwise = `{"action": "sanitize", "method": "feature-grinding", "transformation": "permute", "dataset": "default", "parameters": {"epochs": 7}}`
	releases           = `{"release": true}`
)

// TestPolicyChangeAndRunningJobs starts the server with another policy while a worker sanitizes a model. The run goes on as it was begun, and the new policy
// is asked whether the model may be released; only one that denies the model, or keeps it, ends the run.
func TestPolicyChangeAndRunningJobs(t *testing.T) {
	for name, c := range map[string]struct {
		admission, release string
		sanitizer          string
		state              State
		reason             Reason
	}{
		"sanitizes otherwise": {sanitizesOtherwise, releases, "slow-4s", Released, ""},
		"releases nothing":    {sanitizesOtherwise, `{"release": false, "reasons": ["never"]}`, "slow-4s", Held, ReasonReleaseRejected},
		"denies":              {`{"action": "deny", "reasons": ["not from here"]}`, releases, "hang", Denied, ReasonPolicyDenied},
		"keeps":               {`{"action": "quarantine", "reasons": ["look at it"]}`, releases, "hang", Held, ReasonPolicyHeld},
		"has no answer":       {`{"action": "sanitize"}`, releases, "hang", Held, ReasonPolicyError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, at := t.TempDir(), freePort(t)
			startProcess(t, "queue", filepath.Join(t.TempDir(), "queue"), at)
			url := "nats://" + at
			w := startWorker(t, url, c.sanitizer)
			s := startServer(t, dir, "-queue", url, "-workers", "0")
			pushed := s.pushModel("models/a", "v1", "a").Digest.String()
			before := s.become(pushed, Sanitizing)
			w.awaitChild()
			s.Kill()
			s = startServer(t, dir, "-queue", url, "-workers", "0", "-policy", policies(t, c.admission, c.release))
			a := s.settle()[0]
			if a.State != c.state || a.Reason != c.reason || a.PolicyDigest == before.PolicyDigest {
				t.Fatalf("%s %s %s, decided by %s, before by %s", a.State, a.Reason, a.Message, a.PolicyDigest, before.PolicyDigest)
			}
			if c.sanitizer != "hang" && (a.Attempts != 1 || a.Runs != 1 || a.Decision.ID != before.Decision.ID || a.Verdict.PolicyDigest != a.PolicyDigest) {
				t.Errorf("%d attempts in %d runs; %+v, then %+v", a.Attempts, a.Runs, a.Decision, a.Verdict)
			}
			if c.state == Released {
				s.checkReleased("models/a", "v1", "a", a)
			}
			checkQueueEmpty(t, url) // nobody works on what is over
		})
	}
}

// TestPolicyChangeAfterTheRun kills the server at the points after the run, and starts it with another policy: what was sanitized is not sanitized again, and
// what is not signed yet is asked about again.
func TestPolicyChangeAfterTheRun(t *testing.T) {
	for point, again := range map[string]bool{
		"sanitizing done": true, "evaluating recorded": true, "evaluating done": true, "attesting recorded": true, "attestation signed": true, "attesting done": true,
		"releasing recorded": false, "tag moved": false,
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := startServer(t, dir, "-stop", point)
			s.pushModel("models/a", "v1", "a")
			s.reach()
			before := s.admissions("")[0]
			s.Kill()
			s = startServer(t, dir, "-policy", policies(t, sanitizesOtherwise, releases))
			a := s.settle()[0]
			if a.State != Released || a.Runs != 1 || a.Decision.ID != before.Decision.ID || (a.Verdict.PolicyDigest != before.PolicyDigest) != again {
				t.Fatalf("%s %s %s, %d runs; %+v, then %+v", a.State, a.Reason, a.Message, a.Runs, a.Decision, a.Verdict)
			}
			r, err := attest.VerifyRef(t.Context(), s.address+"/models/a:v1", s.public(), attest.RefOptions{Anonymous: true})
			if err != nil {
				t.Fatal(err)
			}
			if p := r.Statement.Predicate; point != "attesting done" && (p.Decision.ID != a.Verdict.ID || "sha256:"+p.Policy.Digest.SHA256 != a.Verdict.PolicyDigest) {
				t.Errorf("attested is decision %s of policy %s", p.Decision.ID, p.Policy.Digest.SHA256)
			}
		})
	}
}

// TestPolicyChangeAndSeveralModels: of a package whose first model is through and whose second is in work, the new policy is asked about both.
func TestPolicyChangeAndSeveralModels(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "-sanitizer", "slow-3s")
	if _, err := s.push("models/two", "v1", map[string][]byte{"a.onnx": testModel("a"), "b.onnx": testModel("b")}); err != nil {
		t.Fatal(err)
	}
	var before Admission
	for deadline := time.Now().Add(60 * time.Second); before.State != Sanitizing || before.Verdict == nil; before = s.admissions("")[0] {
		if time.Now().After(deadline) {
			t.Fatalf("the second model is not in work: %s %s", before.State, before.Message)
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Kill()
	s = startServer(t, dir, "-policy", policies(t, sanitizesOtherwise, releases))
	a := s.settle()[0]
	if a.State != Released || a.Runs != 2 || len(a.Further) != 1 {
		t.Fatalf("%s %s %s, %d runs", a.State, a.Reason, a.Message, a.Runs)
	}
	for _, v := range []string{a.Verdict.PolicyDigest, a.Further[0].Verdict.PolicyDigest} {
		if v == before.PolicyDigest || v != a.PolicyDigest {
			t.Errorf("released by the policies %s and %s; today's is %s", a.Verdict.PolicyDigest, a.Further[0].Verdict.PolicyDigest, a.PolicyDigest)
		}
	}
}
