package webhook

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// filledStore is a store that remembers n admissions of 100 repositories, and writes none.
func filledStore(tb testing.TB, n int) *Store {
	tb.Helper()
	s, _, err := OpenStore(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		repository := fmt.Sprint("models/", i%100)
		s.remember(&Admission{
			ID: fmt.Sprintf("%08d", i), State: Released, Released: &Release{Digest: fmt.Sprint("sha256:r", i)}, Tags: []Tag{{Name: fmt.Sprint("v", i), Order: uint64(i + 1)}},
			Source: Source{Repository: repository, Digest: fmt.Sprint("sha256:", i), Blobs: []string{fmt.Sprint("sha256:b", i), fmt.Sprint("sha256:c", i)}},
		})
	}
	return s
}

// What is asked of every pull that finds nothing, and of every push and release, takes the same time for many admissions as for few.
func TestLookupsDoNotSearch(t *testing.T) {
	took := func(n int) time.Duration {
		p, least := &Pipeline{store: filledStore(t, n)}, time.Hour
		for range 10 {
			begin := time.Now()
			for range 100 {
				p.Status("models/7", "nothing")
				p.store.releasedAs("models/7", "nothing")
				p.store.Holder("models/7", "nothing")
			}
			least = min(least, time.Since(begin))
		}
		return least
	}
	if few, many := took(10), took(10_000); many > 30*few {
		t.Errorf("%v among 10 admissions, %v among 10,000", few, many)
	}
}

// TestLookups compares what is found at once with what a search finds, also after reopening.
func TestLookups(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		s := openStore(t, dir)
		digests := []string{"a", "b", "c"}
		var ids []string
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			digest := rapid.SampledFrom(digests).Draw(r, "digest")
			if len(ids) == 0 || rapid.Bool().Draw(r, "push") {
				blobs := rapid.SliceOfNDistinct(rapid.SampledFrom(digests), 0, 2, rapid.ID[string]).Draw(r, "blobs")
				a, err := s.Create(Source{Repository: "m", Digest: digest, Blobs: blobs}, "", "", func(*Admission) {})
				if err != nil {
					r.Fatal(err)
				}
				ids = append(ids, a.ID)
				continue
			}
			state := rapid.SampledFrom([]State{Released, Releasing, Held}).Draw(r, "state")
			if _, err := s.Update(rapid.SampledFrom(ids).Draw(r, "id"), func(a *Admission) {
				if a.State = state; state == Released || state == Releasing && a.Released == nil {
					a.Released = &Release{Digest: digest}
				}
			}); err != nil {
				r.Fatal(err)
			}
		}
		again := openStore(t, dir)
		for _, d := range digests {
			newest := func(match func(*Admission) bool) (id string) {
				for _, a := range s.List(match) {
					id = a.ID
				}
				return id
			}
			for name, c := range map[string]struct {
				ask  func(*Store) (*Admission, bool)
				want string
			}{
				"Newest":     {func(s *Store) (*Admission, bool) { return s.Newest("m", d) }, newest(func(a *Admission) bool { return a.Source.Digest == d })},
				"newestWith": {func(s *Store) (*Admission, bool) { return s.newestWith("m", d) }, newest(func(a *Admission) bool { return slices.Contains(a.Source.Blobs, d) })},
				"releasedAs": {func(s *Store) (*Admission, bool) { return s.releasedAs("m", d) }, newest(func(a *Admission) bool {
					return a.State != Held && a.Released != nil && a.Released.Digest == d && !a.Unsanitized()
				})},
			} {
				for _, s := range []*Store{s, again} {
					if a, ok := c.ask(s); ok != (c.want != "") || ok && a.ID != c.want {
						r.Errorf("%s of %s: %+v, want %q", name, d, a, c.want)
					}
				}
			}
		}
	})
}

func BenchmarkStatusOfNothing(b *testing.B) {
	p := &Pipeline{store: filledStore(b, 100_000)}
	for b.Loop() {
		p.Status("models/7", "nothing")
	}
}
