package integration

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"grindstone/webhook"
)

// tinyONNX is a valid ONNX file with an empty graph of the given name.
func tinyONNX(name string) []byte {
	graph := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), name)
	opset := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 17)
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 8)
	b = protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), graph)
	return protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), opset)
}

// pushTiny pushes a package with a model that needs no sanitizing in these tests, and returns its admission when it has ended.
func (s *server) pushTiny(repository, tag, name string) webhook.Admission {
	s.Helper()
	s.pushORAS(repository, tag, nil, layerFile{"", "application/vnd.oci.empty.v1+json", []byte("{}")},
		layerFile{"model.onnx", "application/octet-stream", tinyONNX(name)})
	return s.await(repository, time.Minute)
}

// admissions runs `grindstone admissions` against the server.
func (s *server) admissions(args ...string) string {
	s.Helper()
	out, err := s.grindstone(append([]string{"admissions", "--server", "http://" + s.address}, args...)...)
	if err != nil {
		s.Fatalf("admissions %q: %v\n%s", args, err, out)
	}
	return out
}

// refused runs `grindstone admissions` and wants it to end with the code.
func (s *server) refused(code int, words string, args ...string) {
	s.Helper()
	out, err := s.grindstone(append([]string{"admissions", "--server", "http://" + s.address}, args...)...)
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != code || !strings.Contains(out, words) {
		s.Errorf("admissions %q: %v; want exit code %d and %q\n%s", args, err, code, words, out)
	}
}

// TestOperatorsCommands goes through every command of an operator against the real server, which has no clean data: all is held.
func TestOperatorsCommands(t *testing.T) {
	s := startServer(t)
	if out := s.admissions("list"); out != "no admissions\n" {
		t.Errorf("an empty list: %q", out)
	}
	a, b := s.pushTiny("models/a", "v1", "a"), s.pushTiny("models/b", "v1", "b")

	if out := s.admissions("list"); !strings.Contains(out, a.ID) || !strings.Contains(out, b.ID) || !strings.Contains(out, "no-dataset") {
		t.Errorf("list:\n%s", out)
	}
	if out := s.admissions("list", "--state", "held", "--repository", "models/a"); !strings.Contains(out, a.ID) || strings.Contains(out, b.ID) {
		t.Errorf("a filtered list:\n%s", out)
	}
	var list struct{ Total int }
	if err := json.Unmarshal([]byte(s.admissions("list", "--json")), &list); err != nil || list.Total != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	s.refused(1, "unknown state", "list", "--state", "lost")
	s.refused(1, `there is no admission "nobody"`, "show", "nobody")
	if out := s.admissions("show", a.ID); !strings.Contains(out, "held") || !strings.Contains(out, a.Source.Digest) || !strings.Contains(out, "model.onnx") {
		t.Errorf("show:\n%s", out)
	}

	// Approve: released as it was pushed, and attested as that.
	s.refused(2, "needs a reason", "approve", a.ID)
	if out := s.admissions("approve", a.ID, "--reason", "built in house"); !strings.Contains(out, "by loopback") || !strings.Contains(out, "built in house") {
		t.Errorf("approve:\n%s", out)
	}
	if out := s.admissions("watch", a.ID); !strings.Contains(out, "attesting approved without sanitizing by loopback: built in house") ||
		!strings.HasSuffix(strings.TrimSpace(out), " released") {
		t.Errorf("watch:\n%s", out)
	}
	if out := s.admissions("list", "--state", "released"); !strings.Contains(out, "released (approved)") {
		t.Errorf("list:\n%s", out)
	}
	s.refused(1, "409", "approve", a.ID, "--reason", "again")
	reference, key := s.address+"/models/a:v1", s.dir+"/keys/grindstone.pub"
	out, err := s.grindstone("verify", reference, "--key", key)
	if err == nil || !strings.Contains(out, "FAIL  sanitized") || !strings.Contains(out, "approved without sanitizing, by operator loopback: built in house") ||
		!strings.Contains(out, "NOT VERIFIED") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err = s.grindstone("verify", reference, "--key", key, "--allow-approved")
	if err != nil || !strings.Contains(out, "NOT SANITIZED") || !strings.Contains(out, a.Source.Digest) {
		t.Errorf("verify --allow-approved: %v\n%s", err, out)
	}

	// Reject, and think better of it.
	s.admissions("reject", b.ID, "--reason", "unknown origin")
	if got := s.admission("models/b"); got.State != webhook.Denied || got.Reason != webhook.ReasonRejected {
		t.Errorf("rejected: %s %s", got.State, got.Reason)
	}
	s.admissions("retry", b.ID, "--reason", "found it")
	if got := s.await("models/b", time.Minute); got.Reason != webhook.ReasonNoDataset || len(got.Operations) != 2 {
		t.Errorf("tried again: %s %+v", got.Reason, got.Operations)
	}
	for _, words := range []string{"rejected by loopback: unknown origin", "tried again by loopback: found it", "held (no-dataset)"} {
		if out := s.admissions("logs", b.ID); !strings.Contains(out, words) {
			t.Errorf("the log lacks %q:\n%s", words, out)
		}
	}

	// Garbage: a rejected package, first looked at, then removed; on a folder in use only the server removes.
	s.admissions("reject", b.ID, "--reason", "after all")
	gc := func(args ...string) (string, error) {
		return s.grindstone(append([]string{"gc", "--older-than", "0s"}, args...)...)
	}
	if out, err := gc("--server", "http://"+s.address); err != nil || !strings.Contains(out, "models/b@"+b.Source.Digest) || !strings.Contains(out, "grindstone gc --older-than 0s --remove") {
		t.Errorf("gc: %v\n%s", err, out)
	}
	if out, err := gc("--dir", s.dir, "--json"); err != nil || !strings.Contains(out, b.Source.Digest) {
		t.Errorf("gc --dir: %v\n%s", err, out)
	}
	if out, err := gc("--dir", s.dir, "--remove"); err == nil || !strings.Contains(out, "the server runs") {
		t.Errorf("gc --dir --remove beside a server: %v\n%s", err, out)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := gc("--dir", s.dir, "--remove"); err != nil || !strings.Contains(out, "removed") {
		t.Errorf("gc --dir --remove: %v\n%s", err, out)
	}
	if out, err := gc("--dir", s.dir); err != nil || out != "nothing is left behind\n" {
		t.Errorf("gc after that: %v\n%s", err, out)
	}

	out, err = s.grindstone("admissions", "list", "--server", "nowhere")
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 2 {
		t.Errorf("a server that is no URL: %v\n%s", err, out)
	}
}
