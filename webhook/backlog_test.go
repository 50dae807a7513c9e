package webhook

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// One identity has no more admissions in work than the limit says, and those of others go past the ones that wait.
func TestBacklogPerIdentity(t *testing.T) {
	q := newBacklog()
	q.limit(2, func(id string) string { who, _, _ := strings.Cut(id, "-"); return who })
	for _, id := range []string{"a-1", "a-2", "a-3", "-1", "-2", "-3", "b-1", "a-4"} {
		q.add(id)
	}
	take := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		id, _ := q.take(ctx)
		return id
	}
	var got []string
	for id := take(); id != ""; id = take() {
		got = append(got, id)
	}
	if want := []string{"a-1", "a-2", "-1", "-2", "-3", "b-1"}; !slices.Equal(got, want) {
		t.Fatalf("in work %q, want %q", got, want)
	}
	q.done("-1")
	if id := take(); id != "" {
		t.Errorf("%s began before one of its identity was done", id)
	}
	q.done("a-2")
	if id := take(); id != "a-3" {
		t.Errorf("after a-2 comes %q", id)
	}
}

// TestALongBacklog: to look through what waits of identities that have enough in work asks once who each is.
func TestALongBacklog(t *testing.T) {
	q, asked := newBacklog(), 0
	q.limit(8, func(string) string { asked++; return "alice" })
	for i := range 1000 {
		q.add(strconv.Itoa(i))
	}
	for range 8 {
		if _, ok := q.first(); !ok {
			t.Fatal("nothing to do")
		}
	}
	asked = 0
	if id, ok := q.first(); ok || asked > 1100 {
		t.Errorf("%q %v, asked %d times", id, ok, asked)
	}
}

// TestOneModelAtATime: no more models are sanitized at the same time than there are workers.
func TestOneModelAtATime(t *testing.T) {
	for workers, want := range map[string]int{"1": 1, "2": 2} {
		s := startServer(t, t.TempDir(), "-workers", workers, "-sanitizer", "slow-1s")
		for _, name := range []string{"a", "b", "c"} {
			s.pushModel("models/"+name, "v1", name)
		}
		most := 0
		for len(s.admissions("?state=released")) < 3 {
			most = max(most, len(s.admissions("?state=sanitizing")))
			time.Sleep(10 * time.Millisecond)
		}
		if most != want {
			t.Errorf("%s workers have %d models in work", workers, most)
		}
	}
}
