package webhook

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"grindstone/webhook/pushevent"
)

// gate is a registry that is not fronted, with repositories named in/slow... whose blobs do not come until it is opened.
type gate struct {
	otherRegistry
	mu     sync.Mutex
	open   chan struct{}
	inside map[string]int // requests that wait, by repository
	most   int            // repositories that waited at the same time
}

func newGate(t *testing.T) *gate {
	g := &gate{open: make(chan struct{}), inside: map[string]int{}}
	behind := newOtherRegistry(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, blob := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/sha256:")
		if r.Method == http.MethodGet && blob && strings.HasPrefix(name, "in/slow") {
			g.count(name, 1)
			select {
			case <-g.open:
			case <-r.Context().Done():
			}
			g.count(name, -1)
		}
		behind.handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	g.otherRegistry = otherRegistry{t, strings.TrimPrefix(server.URL, "http://"), behind.handler}
	return g
}

func (g *gate) count(name string, by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[name] += by; g.inside[name] == 0 {
		delete(g.inside, name)
	}
	g.most = max(g.most, len(g.inside))
}

// waiting are the repositories that wait, once there are so many.
func (g *gate) waiting(want int) {
	g.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		g.mu.Lock()
		now := len(g.inside)
		g.mu.Unlock()
		if now == want {
			return
		} else if time.Now().After(deadline) {
			g.Fatalf("%d downloads wait; %d are to", now, want)
		}
	}
}

// event pushes a package to the source and tells the server of it.
func (g *gate) event(s *serverProcess, repository, tag, name string) {
	g.Helper()
	d := g.push(repository, tag, name)
	if status, text := s.tell("distribution", distributionEvent(repository+name, repository, tag, d.Digest.String(), time.Now()), bearer); status != http.StatusAccepted || !strings.Contains(text, `"taken":1`) {
		g.Fatalf("%d %s", status, text)
	}
}

// arrives waits until a package of a push event is released.
func (s *serverProcess) arrives(repository string) Admission {
	s.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, a := range s.admissions("?repository=events/distribution/" + repository) {
			if a.State == Released {
				return a
			}
		}
	}
	s.Fatalf("%s does not arrive", repository)
	return Admission{}
}

// TestASlowPushEventHoldsUpNoOther: downloads that stand still leave the other lanes open; no more of them than configured are under way; and a server that is
// stopped, or killed, in the middle of them brings all of them in afterwards.
func TestASlowPushEventHoldsUpNoOther(t *testing.T) {
	for name, end := range map[string]func(*serverProcess){
		"killed": (*serverProcess).Kill,
		"stopped": func(s *serverProcess) {
			begun := time.Now()
			if err := s.Stop(); err != nil || time.Since(begun) > 10*time.Second {
				s.Errorf("a server that is stopped ends after %v with %v", time.Since(begun), err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, g := t.TempDir(), newGate(t)
			s := startServer(t, dir, "-events", g.host, "-at-once", "3")
			g.event(s, "in/slow1", "v1", "a")
			g.event(s, "in/slow2", "v1", "b")
			g.waiting(2)
			g.event(s, "in/quick", "v1", "c")
			s.arrives("in/quick")
			for i := 3; i <= 6; i++ {
				g.event(s, fmt.Sprint("in/slow", i), "v1", fmt.Sprint("m", i))
			}
			g.event(s, "in/late", "v1", "d")
			g.waiting(3)
			time.Sleep(300 * time.Millisecond) // for a fourth, if it comes
			if g.most != 3 {
				t.Errorf("%d are brought in at the same time; 3 are configured", g.most)
			}
			if list := s.admissions("?repository=events/distribution/in/late"); len(list) != 0 {
				t.Errorf("a fourth is brought in: %+v", list)
			}
			end(s)
			g.waiting(0)
			close(g.open)
			s = startServer(t, dir, "-events", g.host, "-at-once", "3")
			for _, name := range []string{"slow1", "slow2", "slow3", "slow4", "slow5", "slow6", "late"} {
				s.arrives("in/" + name)
			}
			if a := s.arrives("in/slow6"); a.Source.Identity != "event:distribution:ada" {
				t.Errorf("%+v", a.Source)
			}
		})
	}
}

// TestAPushEventEndsInTime: a source that does not send costs an attempt, not for ever.
func TestAPushEventEndsInTime(t *testing.T) {
	g := newGate(t)
	s := startServer(t, t.TempDir(), "-events", g.host, "-at-once", "1", "-event-timeout", "1s")
	g.event(s, "in/slow", "v1", "a")
	g.waiting(1)
	g.event(s, "in/quick", "v1", "b")
	s.arrives("in/quick")
	var left struct{ Events []Ingestion }
	if s.get("/api/v1/events", &left); len(left.Events) != 1 || left.Events[0].State != IngestPending || !strings.Contains(left.Events[0].Error, "did not come within 1s") {
		t.Errorf("%+v", left)
	}
	close(g.open)
	s.arrives("in/slow")
}

// TestATagOfPushEventsIsTheSources: whatever order events come in, a tag ends at what it points at in the source. What it pointed at before is released by
// its digest, and a package whose tag is gone as well.
func TestATagOfPushEventsIsTheSources(t *testing.T) {
	g := newGate(t)
	s := startServer(t, t.TempDir(), "-events", g.host)
	old := g.push("in/m", "v1", "old")
	g.event(s, "in/m", "v1", "new")
	fresh := s.arrives("in/m")
	s.tagBecomes("events/distribution/in/m", "v1", fresh.Released.Digest)
	if status, text := s.tell("distribution", distributionEvent("late", "in/m", "v1", old.Digest.String(), time.Now()), bearer); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	if a := s.become(old.Digest.String(), Released); len(a.Tags) != 0 {
		t.Errorf("the older push has tags: %+v", a.Tags)
	}
	s.tagBecomes("events/distribution/in/m", "v1", fresh.Released.Digest)

	// The same while the older one is on its way: the newer waits for it, and has the tag.
	first := g.push("in/slow", "v1", "first")
	s.tell("distribution", distributionEvent("first", "in/slow", "v1", first.Digest.String(), time.Now()), bearer)
	g.waiting(1)
	g.event(s, "in/slow", "v1", "second")
	close(g.open)
	s.become(first.Digest.String(), Released)
	second := s.admissions("?repository=events/distribution/in/slow&tag=v1")
	for deadline := time.Now().Add(20 * time.Second); len(second) == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		second = s.admissions("?repository=events/distribution/in/slow&tag=v1")
	}
	if len(second) != 1 || second[0].Source.Digest == first.Digest.String() {
		t.Fatalf("%+v", second)
	}
	s.tagBecomes("events/distribution/in/slow", "v1", s.become(second[0].Source.Digest, Released).Released.Digest)

	// A tag that is gone.
	gone := g.push("in/gone", "v2", "gone")
	if status, text := s.tell("distribution", distributionEvent("gone", "in/gone", "v1", gone.Digest.String(), time.Now()), bearer); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	if a := s.become(gone.Digest.String(), Released); len(a.Tags) != 0 {
		t.Errorf("%+v", a.Tags)
	}
}

// eventRecords is an ingester without a server.
func eventRecords(t *testing.T, dir string) *ingester {
	t.Helper()
	in, err := newIngester(&Pipeline{PipelineConfig: PipelineConfig{Dir: dir, Log: slog.New(slog.DiscardHandler), Ingest: IngestConfig{AtOnce: 2, Keep: 30 * 24 * time.Hour}}})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

var anySource = EventSource{Kind: "distribution", Window: 24 * time.Hour, Matches: func(string) bool { return true }}

// end gives every pending event an end, as an attempt does.
func (in *ingester) end(t *testing.T, state string, expires time.Time) {
	t.Helper()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, i := range in.byID {
		if i.State == IngestPending {
			ended := *i
			ended.State, ended.ExpiresAt = state, expires
			if err := in.put(&ended); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (in *ingester) states() (all []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, i := range in.byID {
		all = append(all, i.Event.ID+" "+i.State)
	}
	slices.Sort(all)
	return all
}

// TestEventRecordsEnd: an event that is through is known again for its window, over restarts; one that failed is listed as long as its record is kept, or until it
// is told of again; pending ones stay.
func TestEventRecordsEnd(t *testing.T) {
	dir := t.TempDir()
	in := eventRecords(t, dir)
	take := func(in *ingester, ids ...string) int {
		t.Helper()
		var events []pushevent.Pushed
		for _, id := range ids {
			events = append(events, pushevent.Pushed{ID: id, Repository: "m", Tag: "v1"})
		}
		n, err := in.take(anySource, events)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	day := 24 * time.Hour
	take(in, "through")
	in.end(t, IngestThrough, time.Now().Add(day))
	take(in, "failed")
	in.end(t, IngestFailed, time.Now().Add(30*day))
	take(in, "pending")

	in = eventRecords(t, dir)
	if n := take(in, "through", "pending", "new"); n != 1 {
		t.Errorf("after a restart %d are new; 1 is", n)
	}
	for _, c := range []struct {
		after time.Duration
		want  []string
	}{
		{23 * time.Hour, []string{"failed failed", "new pending", "pending pending", "through through"}},
		{25 * time.Hour, []string{"failed failed", "new pending", "pending pending"}},
		{29 * day, []string{"failed failed", "new pending", "pending pending"}},
		{31 * day, []string{"new pending", "pending pending"}},
		{31000 * day, []string{"new pending", "pending pending"}},
	} {
		in.due(time.Now().Add(c.after))
		if got := in.states(); !slices.Equal(got, c.want) {
			t.Errorf("after %v: %q, want %q", c.after, got, c.want)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "state", "events", "*")); len(files) != len(c.want) {
			t.Errorf("after %v: files %q", c.after, files)
		}
	}
	if n := take(in, "through", "failed", "pending", "new"); n != 2 {
		t.Errorf("after their records are gone %d are new; 2 are", n)
	}

	in.end(t, IngestFailed, time.Now().Add(30*day)) // whoever sends one again wants it tried again
	if n, got := take(in, "failed"), in.states(); n != 1 || !slices.Equal(got, []string{"failed pending", "new failed", "pending failed", "through failed"}) {
		t.Errorf("one that failed and is told of again: %d taken, %q", n, got)
	}
}

// TestACommitComesBack: a branch that is set back to a commit it had before is told of with that commit's id once more, and that is no duplicate.
func TestACommitComesBack(t *testing.T) {
	in, hub := eventRecords(t, t.TempDir()), EventSource{Kind: "huggingface", Window: 24 * time.Hour, Matches: func(string) bool { return true }, Hub: &ModelHub{Branch: "main"}}
	for n, c := range []struct {
		model, commit string
		taken         int
		through       bool // what was taken, before the next
	}{
		{"m", "a", 1, true}, {"m", "a", 0, true}, {"m", "b", 1, true}, {"m", "a", 1, true}, {"m", "a", 0, true}, {"m", "b", 1, false}, {"m", "b", 0, false}, {"m", "a", 1, false},
		{"m", "b", 1, true}, {"other", "c", 1, true}, {"m", "b", 0, true},
	} {
		taken, err := in.take(hub, []pushevent.Pushed{{ID: c.commit, Repository: c.model, Tag: c.commit, Model: c.model, Version: c.commit, Ref: "refs/heads/main"}})
		if err != nil || taken != c.taken {
			t.Errorf("event %d, commit %s of %s: %d taken, %v", n, c.commit, c.model, taken, err)
		}
		if c.through {
			in.end(t, IngestThrough, time.Now().Add(time.Hour))
		}
	}
}

// TestEventRecordsOfTheServer: the attempts give the records the ends that the configuration says, the next start removes what is over, and gc shows it.
func TestEventRecordsOfTheServer(t *testing.T) {
	dir, other := t.TempDir(), newOtherRegistry(t)
	s := startServer(t, dir, "-events", other.host, "-keep", "48h")
	pushed := other.push("in/m", "v1", "a")
	event := distributionEvent("e1", "in/m", "v1", pushed.Digest.String(), time.Now())
	s.tell("distribution", event, bearer)
	s.tell("quay", `{"repository":"in/nothing","updated_tags":["v1"]}`, bearer)
	s.arrives("in/m")
	ends := map[string]time.Duration{} // of the records, by state
	for deadline := time.Now().Add(20 * time.Second); len(ends) < 2 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(dir, "state", "events", "*.json"))
		for _, path := range files {
			if i, err := readIngestion(path); err == nil && i.State != IngestPending {
				ends[i.State] = time.Until(i.ExpiresAt).Round(time.Hour)
			}
		}
	}
	if ends[IngestThrough] != time.Hour || ends[IngestFailed] != 48*time.Hour {
		t.Fatalf("%v; the window is 1h, and keep is 48h", ends)
	}
	s.Kill()
	s = startServer(t, dir, "-events", other.host, "-keep", "48h")
	if status, text := s.tell("distribution", event, bearer); status != http.StatusAccepted || !strings.Contains(text, `"taken":0`) {
		t.Errorf("the same event after a restart: %d %s", status, text)
	}

	in := eventRecords(t, filepath.Join(dir, "elsewhere")) // whose records are put under the server
	if _, err := in.take(anySource, []pushevent.Pushed{{ID: "old", Repository: "m", Tag: "v1"}}); err != nil {
		t.Fatal(err)
	}
	in.end(t, IngestFailed, time.Now().Add(-time.Hour))
	record := in.list()[0].ID + ".json"
	text, err := os.ReadFile(filepath.Join(in.dir, record))
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "state", "events", record)
	put := func() {
		if err := os.WriteFile(old, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put()
	if got := s.collect("false"); !slices.Contains(kinds(got), "event ") || len(slices.DeleteFunc(got.Garbage, func(g Garbage) bool { return g.Kind != GarbageEvent })) != 1 {
		t.Errorf("gc shows %q", kinds(got))
	}
	if s.collect("true"); exists(old) {
		t.Error("gc leaves it")
	}
	put()
	s.Kill()
	startServer(t, dir, "-events", other.host)
	if files, _ := filepath.Glob(filepath.Join(dir, "state", "events", "*.json")); exists(old) || len(files) != 2 {
		t.Errorf("after a start: %q", files)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestTooManyEvents: events that wait have a bound, and so have those that came to an end.
func TestTooManyEvents(t *testing.T) {
	in := eventRecords(t, t.TempDir())
	for n := range maxIngestions {
		in.remember(&Ingestion{ID: fmt.Sprintf("%06d", n), Source: "distribution", State: IngestPending, Event: pushevent.Pushed{ID: fmt.Sprint(n), Repository: "m", Tag: "v1"}})
	}
	if _, err := in.take(anySource, []pushevent.Pushed{{ID: "new", Repository: "m", Tag: "v1"}}); err != errManyEvents { //nolint:errorlint // it is not wrapped
		t.Errorf("one more is answered %v", err)
	}
	for id, i := range in.byID {
		ended := *i
		ended.State, ended.ExpiresAt = IngestThrough, time.Now().Add(time.Hour)
		in.byID[id] = &ended
	}
	in.remember(&Ingestion{ID: "999999", Source: "distribution", State: IngestThrough, ExpiresAt: time.Now().Add(time.Hour)})
	in.due(time.Now())
	if len(in.byID) != maxIngestions || in.byID["000000"] != nil || in.byID["999999"] == nil || len(in.seen) != maxIngestions-1 {
		t.Errorf("%d are kept, %d are known", len(in.byID), len(in.seen))
	}
}

// TestLanes: one attempt of a tag, or of a model, at a time; the oldest first; no more than configured; and one that waits for its next attempt is passed by.
func TestLanes(t *testing.T) {
	in := eventRecords(t, t.TempDir())
	later := time.Now().Add(time.Hour)
	for n, i := range []Ingestion{
		{Event: pushevent.Pushed{Repository: "a", Tag: "v1"}},
		{Event: pushevent.Pushed{Repository: "a", Tag: "v1"}},
		{Event: pushevent.Pushed{Repository: "b", Tag: "v1"}, NextAt: later},
		{Event: pushevent.Pushed{Repository: "b", Tag: "v1"}},
		{Event: pushevent.Pushed{Repository: "a", Tag: "v2"}},
		{Event: pushevent.Pushed{Repository: "m", Tag: "1", Model: "m"}},
		{Event: pushevent.Pushed{Repository: "m", Tag: "2", Model: "m"}},
	} {
		i.ID, i.State = fmt.Sprint(n), IngestPending
		in.remember(&i)
	}
	through := func(ids ...string) {
		for _, id := range ids {
			i := in.byID[id]
			in.remove(i)
			in.leave(i)
		}
	}
	for _, want := range []string{"0 3", "1 4", "5", "6", ""} {
		due, pause := in.due(time.Now())
		var ids []string
		for _, i := range due {
			ids = append(ids, i.ID)
		}
		if strings.Join(ids, " ") != want || pause > time.Hour {
			t.Errorf("due are %q, want %q; again after %v", ids, want, pause)
		}
		if again, _ := in.due(time.Now()); want == "5" && len(again) != 0 {
			t.Errorf("and %q", again[0].ID)
		}
		through(ids...)
	}
}

// TestReleasesAreNoPushes: a source tells of what is released to it as well, under whatever name of its host, and whichever source's release it is.
func TestReleasesAreNoPushes(t *testing.T) {
	in := eventRecords(t, t.TempDir())
	a, b := anySource, anySource
	a.Registry, a.Release, a.To = Remote{Host: "a.test"}, Remote{Host: "A.test:443"}, "released/"
	b.Registry, b.Release, b.To = Remote{Host: "b.test:5000", PlainHTTP: true}, Remote{Host: "a.test"}, "of-b/"
	in.p.Events = []EventSource{a, b}
	for repository, want := range map[string]int{"in/m": 1, "released/in/m": 0, "of-b/m": 0, "of-c/m": 1} {
		if taken, err := in.take(a, []pushevent.Pushed{{Repository: repository, Tag: "v1"}}); err != nil || taken != want {
			t.Errorf("%s: %d taken, %v", repository, taken, err)
		}
	}
	if taken, err := in.take(b, []pushevent.Pushed{{Repository: "of-b/m", Tag: "v1"}}); err != nil || taken != 1 {
		t.Errorf("a registry that nothing is released to: %d taken, %v", taken, err)
	}
}

// TestSourcesShareTheLanes: a source that has told of many, and whose attempts take long, does not keep others waiting behind all of them.
func TestSourcesShareTheLanes(t *testing.T) {
	in := eventRecords(t, t.TempDir())
	for n, source := range []string{"harbor", "harbor", "harbor", "zot", "zot", "acr"} {
		in.remember(&Ingestion{ID: fmt.Sprint(n), Source: source, State: IngestPending, Event: pushevent.Pushed{Repository: fmt.Sprint("m", n), Tag: "v1"}})
	}
	var order []string
	for range 5 {
		due, _ := in.due(time.Now())
		for _, i := range due {
			order = append(order, i.ID)
		}
		for _, i := range due[len(due)-1:] { // one lane stays closed
			in.remove(i)
			in.leave(i)
		}
	}
	if got := strings.Join(order, " "); got != "0 3 4 5 1 2" {
		t.Errorf("in the order %s", got)
	}
}
