package webhook

import (
	"context"
	"slices"
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
