package webhook

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// become waits until an admission of the server is in a state.
func (s *serverProcess) become(digest string, state State) Admission {
	s.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, a := range s.admissions("?digest=" + digest) {
			if a.State == state {
				return a
			}
		}
	}
	s.Fatalf("%s does not become %s: %+v", digest, state, s.admissions("?digest="+digest))
	return Admission{}
}

// tagBecomes waits until a tag points at a digest.
func (s *serverProcess) tagBecomes(repository, tag, digest string) {
	s.Helper()
	var at string
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if at, _, err = s.pull(repository, tag); err == nil && at == digest {
			return
		}
	}
	s.Errorf("%s is %s, %v; it is to be %s", tag, at, err, digest)
}

// TestATagGoesToTheNewestReleasedPush: three pushes of one tag, of which the first is released, the second is in work when the third comes, and the third
// fails, before the second is through or after, by its own fault or by an operator's word. The tag ends at the second, and at the third when that is
// released after all.
func TestATagGoesToTheNewestReleasedPush(t *testing.T) {
	for name, c := range map[string]struct {
		second, third string // what the sanitizer does with them
		rejected      bool
		kill          string // point at which the server is killed
	}{
		"held before the second is through": {second: "slow-2s", third: "at-chance"},
		"held after":                        {second: "slow-1s", third: "late-at-chance"},
		"held after, and the server killed": {second: "slow-1s", third: "late-at-chance", kill: "held recorded"},
		"rejected after":                    {second: "slow-1s", third: "hang", rejected: true},
		"held and then rejected":            {second: "slow-2s", third: "at-chance", rejected: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := startServer(t, dir, "-workers", "3", "-sanitizer", "named", "-stop", c.kill)
			push := func(name, behaviour string) string {
				return s.pushModel("models/a", "v1", name+" sanitizer:"+behaviour+";").Digest.String()
			}
			first := s.become(push("first", "ok"), Released)
			second, third := push("second", c.second), push("third", c.third)
			if c.rejected {
				if c.third == "hang" {
					s.become(second, Released)
					s.become(third, Sanitizing)
					if at, _, err := s.pull("models/a", "v1"); err != nil || at != first.Released.Digest {
						t.Errorf("while the newest push is in work, the tag is %s, %v", at, err)
					}
				} else {
					s.become(third, Held)
				}
				id := s.admissions("?digest=" + third)[0].ID
				if status, text := s.post("/api/v1/admissions/"+id+"/reject", `{"reason": "unknown origin"}`); status != http.StatusOK {
					t.Fatalf("%d %s", status, text)
				}
			}
			if c.kill != "" {
				s.reach()
				s.Kill()
				s = startServer(t, dir)
			}
			s.tagBecomes("models/a", "v1", s.become(second, Released).Released.Digest)
			s.settle()

			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			s = startServer(t, dir)
			if status, text := s.post("/api/v1/admissions/"+s.admissions("?digest=" + third)[0].ID+"/retry", `{}`); status != http.StatusOK {
				t.Fatalf("%d %s", status, text)
			}
			s.tagBecomes("models/a", "v1", s.become(third, Released).Released.Digest)
		})
	}
}

// TestATagIsClaimedAtTheStart: the newest push of a tag fails, in every way that there is, and the server is killed before it has given the tag back to the push
// before, which is released by its digest only, in every way that there is. The next start does it.
func TestATagIsClaimedAtTheStart(t *testing.T) {
	denying := t.TempDir()
	for name, text := range map[string]string{"admission": `decision := {"action": "deny", "reasons": ["no more"]}`, "release": `decision := {"release": true}`} {
		if err := os.WriteFile(filepath.Join(denying, name+".rego"), []byte("package grindstone."+name+"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		winner string   // what the sanitizer does with the push before
		fails  []string // how the server is started in which the newest push fails
		state  State    // of the newest push then
	}{
		"sanitized, the newest is held":     {"ok", []string{"-sanitizer", "at-chance", "-stop", "held recorded"}, Held},
		"sanitized, the newest is denied":   {"ok", []string{"-sanitizer", "hang", "-policy", denying, "-stop", "denied recorded"}, Denied},
		"sanitized, the newest is rejected": {"ok", []string{"-sanitizer", "hang", "-stop", "reject recorded"}, Denied},
		"approved, the newest is held":      {"at-chance", []string{"-sanitizer", "crash", "-stop", "held recorded"}, Held},
		"approved, the newest is rejected":  {"at-chance", []string{"-sanitizer", "hang", "-stop", "reject recorded"}, Denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := startServer(t, dir, "-workers", "3", "-sanitizer", "named")
			old := "winner sanitizer:slow-2s;"
			if c.winner == "at-chance" {
				old = "winner sanitizer:at-chance;"
			}
			winner := s.pushModel("models/a", "v1", old).Digest.String()
			if c.winner == "at-chance" {
				s.become(winner, Held)
			}
			loser := s.pushModel("models/a", "v1", "newest sanitizer:hang;").Digest.String()
			s.become(loser, Sanitizing)
			if c.winner == "at-chance" {
				if status, text := s.post("/api/v1/admissions/"+s.admissions("?digest=" + winner)[0].ID+"/approve", `{"reason": "known"}`); status != http.StatusOK {
					t.Fatalf("%d %s", status, text)
				}
			}
			released := s.become(winner, Released)
			s.Kill()

			s = startServer(t, dir, append([]string{"-workers", "3"}, c.fails...)...)
			if slices.Contains(c.fails, "reject recorded") {
				id := s.admissions("?digest=" + loser)[0].ID
				go func() { // it is not answered
					if answer, err := http.Post("http://"+s.address+"/api/v1/admissions/"+id+"/reject", "application/json", strings.NewReader(`{"reason": "unknown origin"}`)); err == nil {
						answer.Body.Close()
					}
				}()
			}
			s.reach()
			s.Kill()
			s = startServer(t, dir, "-workers", "3", "-sanitizer", "hang")
			if a := s.admissions("?digest=" + loser)[0]; a.State != c.state {
				t.Fatalf("the newest push is %s %s", a.State, a.Message)
			}
			s.tagBecomes("models/a", "v1", released.Released.Digest)
		})
	}
}

// TestATagThatHasNotGoneIsNotMovedAgain: a push of a tag fails while the tag points at the release of the push before. That is not released a second time.
func TestATagThatHasNotGoneIsNotMovedAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), "-sanitizer", "named")
	first := s.become(s.pushModel("models/a", "v1", "first sanitizer:ok;").Digest.String(), Released)
	s.become(s.pushModel("models/a", "v1", "second sanitizer:at-chance;").Digest.String(), Held)
	s.settle()
	if now := s.admission(first.ID); now.changes() != first.changes() {
		t.Errorf("the release entered %d states before the next push failed, and %d after: %+v", first.changes(), now.changes(), now.History)
	}
	s.tagBecomes("models/a", "v1", first.Released.Digest)
}
