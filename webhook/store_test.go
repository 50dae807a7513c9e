package webhook

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, broken, err := OpenStore(dir)
	if err != nil || len(broken) > 0 {
		t.Fatal(err, broken)
	}
	return s
}

func create(t *testing.T, s *Store, repository, digest, tag string) *Admission {
	t.Helper()
	a, err := s.Create(Source{Repository: repository, Digest: digest, Models: []Model{}}, tag, "sha256:p", func(*Admission) {})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestStoreSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	a := create(t, s, "m/a", "sha256:1", "v1")
	b := create(t, s, "m/a", "sha256:2", "v1")
	if _, err := s.Update(a.ID, func(a *Admission) { a.enter(Held, ReasonCrashed, "boom", time.Now().UTC()) }); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, dir)
	all := func(*Admission) bool { return true }
	if x, y := s.List(all), again.List(all); !reflect.DeepEqual(x, y) {
		t.Errorf("differs after reopening:\n%+v\n%+v", x[0], y[0])
	}
	if again.Owner("m/a", "v1") != b.ID {
		t.Error("the newest push of the tag was lost")
	}
	c := create(t, again, "m/a", "sha256:3", "v1")
	if c.Tags[0].Order <= b.Tags[0].Order {
		t.Errorf("order %d after %d", c.Tags[0].Order, b.Tags[0].Order)
	}
	if list := again.List(all); list[len(list)-1].ID != c.ID {
		t.Error("the list is not in order of time")
	}
}

func TestStoreUpdateDoesNotChangeWhatOthersHold(t *testing.T) {
	s := openStore(t, t.TempDir())
	a := create(t, s, "m", "sha256:1", "v1")
	if _, err := s.Repush(a.ID, "v2"); err != nil {
		t.Fatal(err)
	}
	if len(a.Tags) != 1 {
		t.Error("a record handed out was changed")
	}
	if now, _ := s.Get(a.ID); len(now.Tags) != 2 {
		t.Error("the push was not recorded")
	}
	if _, err := s.Update("nobody", func(*Admission) {}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestStoreKeepsWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	a := create(t, s, "m", "sha256:1", "v1")
	files := map[string]string{
		"0190.json":         "{",
		"0191.json":         `{"schema_version": 2, "id": "0191", "state": "released"}`,
		"0192.json":         `{"schema_version": 1, "id": "other", "state": "released"}`,
		"0193.json":         `{"schema_version": 1, "id": "0193", "state": "nonsense"}`,
		"0194.json":         `{"schema_version": 1, "id": "0194", "state": "released"}`,
		tempPrefix + "1234": "cut off",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again, broken, err := OpenStore(dir)
	if err != nil || len(broken) != 5 {
		t.Fatal(err, broken)
	}
	if _, ok := again.Get(a.ID); !ok {
		t.Error("a good record was lost beside broken ones")
	}
	for name := range files {
		_, err := os.Stat(filepath.Join(dir, name))
		if kept := err == nil; kept != (name[0] != '.') {
			t.Errorf("%s: kept is %v", name, kept)
		}
	}
}

// TestStoreOnFailingDisk checks that a change that cannot be written is not there in memory either.
func TestStoreOnFailingDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "admissions")
	s := openStore(t, dir)
	a := create(t, s, "m", "sha256:1", "v1")
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(a.ID, func(a *Admission) { a.State = Released }); err == nil {
		t.Fatal("a write into a folder that is gone succeeded")
	}
	if now, _ := s.Get(a.ID); now.State != Quarantined {
		t.Errorf("state is %s although it is not on disk", now.State)
	}
	if s.Writable() == nil {
		t.Error("says it is writable")
	}
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Writable(); err != nil {
		t.Error(err)
	}
}

// TestTagOwnership compares the store with a plain model, also after reopening: the newest push of a tag that was not denied owns it, and the
// newest that did not fail, or has the tag already, holds it.
func TestTagOwnership(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "store")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s, _, err := OpenStore(dir)
		if err != nil {
			r.Fatal(err)
		}
		type push struct{ id, tag string }
		var pushes []push
		var ids []string
		denied, held, moved := map[string]bool{}, map[string]bool{}, map[push]bool{}
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			tag := rapid.SampledFrom([]string{"v1", "v2", ""}).Draw(r, "tag")
			switch op := rapid.IntRange(0, 4).Draw(r, "op"); {
			case op == 0 || len(ids) == 0:
				a, err := s.Create(Source{Repository: "m", Digest: "sha256:x"}, tag, "", func(*Admission) {})
				if err != nil {
					r.Fatal(err)
				}
				ids, pushes = append(ids, a.ID), append(pushes, push{a.ID, tag})
			case op == 1:
				id := rapid.SampledFrom(ids).Draw(r, "id")
				if _, err := s.Repush(id, tag); err != nil {
					r.Fatal(err)
				}
				pushes = append(pushes, push{id, tag})
				held[id] = false
				delete(moved, push{id, tag})
			case op == 2:
				id := rapid.SampledFrom(ids).Draw(r, "id")
				if _, err := s.Update(id, func(a *Admission) {
					if a.State != Denied {
						a.State, held[id] = Held, true
					}
				}); err != nil {
					r.Fatal(err)
				}
			case op == 3:
				id := rapid.SampledFrom(ids).Draw(r, "id")
				if _, err := s.Update(id, func(a *Admission) {
					for i := range a.Tags {
						if a.Tags[i].Name == tag {
							a.Tags[i].Moved, moved[push{id, tag}] = true, true
						}
					}
				}); err != nil {
					r.Fatal(err)
				}
			default:
				id := rapid.SampledFrom(ids).Draw(r, "id")
				if _, err := s.Update(id, func(a *Admission) { a.State = Denied }); err != nil {
					r.Fatal(err)
				}
				denied[id] = true
			}
		}
		again, _, err := OpenStore(dir)
		if err != nil {
			r.Fatal(err)
		}
		for _, tag := range []string{"v1", "v2"} {
			want, holder := "", ""
			for _, p := range pushes {
				if p.tag == tag && !denied[p.id] {
					want = p.id
					if !held[p.id] || moved[p] {
						holder = p.id
					}
				}
			}
			if s.Holder("m", tag) != holder || again.Holder("m", tag) != holder {
				r.Errorf("tag %s is held by %q, reopened %q, want %q", tag, s.Holder("m", tag), again.Holder("m", tag), holder)
			}
			if s.Owner("m", tag) != want || again.Owner("m", tag) != want {
				r.Errorf("tag %s: %q, reopened %q, want %q", tag, s.Owner("m", tag), again.Owner("m", tag), want)
			}
		}
	})
}

func TestAdmissionJSONShape(t *testing.T) {
	s := openStore(t, t.TempDir())
	data, err := json.Marshal(create(t, s, "m", "sha256:1", "v1"))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"schema_version", "id", "state", "source", "tags", "policy_digest", "attempts", "created_at", "updated_at", "history"} {
		if _, ok := m[field]; !ok {
			t.Errorf("no field %s", field)
		}
	}
	for _, field := range []string{"reason", "message", "decision", "report", "released"} {
		if _, ok := m[field]; ok {
			t.Errorf("field %s is there although it says nothing", field)
		}
	}
}

// TestNewestAfterTheClockWasSetBack: an admission that is made when the clock shows less than at the one before is newer all the same.
func TestNewestAfterTheClockWasSetBack(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	a := create(t, s, "m/a", "sha256:1", "v1")
	future, err := a.clone()
	if err != nil {
		t.Fatal(err)
	}
	future.ID = "0f" + a.ID[2:] // made with a clock that is thousands of years ahead
	if err := s.write(future); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = openStore(t, dir)
		b := create(t, s, "m/a", "sha256:1", "v1")
		if newest, ok := s.Newest("m/a", "sha256:1"); !ok || newest.ID != b.ID || b.ID <= future.ID {
			t.Errorf("the newest is %s, not %s", newest.ID, b.ID)
		}
	}
}
