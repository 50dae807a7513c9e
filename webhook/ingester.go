package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"grindstone/webhook/pushevent"
)

// IngestConfig bounds the work on push events.
type IngestConfig struct {
	AtOnce int           // events whose packages are brought in at the same time; default 4
	Keep   time.Duration // for how long the record of an event that failed is kept; default 30 days
}

func (c *IngestConfig) defaults() {
	if c.AtOnce <= 0 {
		c.AtOnce = 4
	}
	setDefault(&c.Keep, 30*24*time.Hour)
}

// Ingestion is the record of a push event that was taken: the package is pulled from its registry and pushed to this one, as a client would.
type Ingestion struct {
	ID        string           `json:"id"`
	Source    string           `json:"source"` // kind
	Event     pushevent.Pushed `json:"event"`
	Attempts  int              `json:"attempts"`
	NextAt    time.Time        `json:"next_at,omitzero"`
	State     string           `json:"state"`
	Error     string           `json:"error,omitempty"`
	SeenUntil time.Time        `json:"seen_until,omitzero"` // the same event is a duplicate until then: the source's window
	ExpiresAt time.Time        `json:"expires_at,omitzero"` // when the record goes; zero while the event is pending
}

// The states of an ingestion.
const (
	IngestPending = "pending"
	IngestFailed  = "failed"
	IngestThrough = "through" // kept only to know the event again
)

// key is the same for duplicates of an event; "" if they cannot be told from new ones.
func (i *Ingestion) key() string {
	if i.Event.ID == "" {
		return ""
	}
	return strings.Join([]string{i.Source, i.Event.ID, i.Event.Repository, i.Event.Tag, i.Event.Digest}, "\x00")
}

// expired reports whether nobody needs the record any more.
func (i *Ingestion) expired(now time.Time) bool {
	return i.State != IngestPending && now.After(i.ExpiresAt)
}

// ingestPauses lie between the attempts.
var ingestPauses = []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, time.Hour, time.Hour}

// maxIngestions bounds the records of each state, in memory and on the disk. Over it new events are refused, to be sent again, and the oldest that failed, or that
// are through, are forgotten.
const maxIngestions = 10_000

var errManyEvents = errors.New("too many push events wait to be brought in")

// ingester keeps the events that were taken, a JSON file each, and brings their packages into quarantine, a few at the same time.
type ingester struct {
	IngestConfig
	p    *Pipeline
	dir  string
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex
	byID map[string]*Ingestion // values are never changed in place
	seen map[string]string     // ids by their keys
	busy map[string]string     // lanes in which an attempt is under way, with their sources
}

func newIngester(p *Pipeline) (*ingester, error) {
	in := &ingester{
		IngestConfig: p.Ingest, p: p, dir: filepath.Join(p.Dir, "state", ingestFolder), log: p.Log, wake: make(chan struct{}, 1),
		byID: map[string]*Ingestion{}, seen: map[string]string{}, busy: map[string]string{},
	}
	in.defaults()
	if err := os.MkdirAll(in.dir, 0o700); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(in.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		i, err := readIngestion(path)
		if errors.Is(err, errNoIngestion) {
			in.log.Error("a push event that was taken cannot be read", "file", filepath.Base(path), "error", err)
			continue
		} else if err != nil {
			return nil, err
		}
		if i.State == IngestFailed && i.ExpiresAt.IsZero() { // of an older version
			i.ExpiresAt = i.NextAt.Add(in.Keep)
		}
		in.remember(i)
	}
	in.expire(time.Now())
	return in, nil
}

const ingestFolder = "events"

var errNoIngestion = errors.New("not the record of a push event")

func readIngestion(path string) (*Ingestion, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var i Ingestion
	if err := json.Unmarshal(data, &i); err != nil || i.ID+".json" != filepath.Base(path) {
		return nil, errors.Join(errNoIngestion, err)
	}
	return &i, nil
}

// take records events, so that they are not lost when it returns. Those that were taken before are left out; it returns the number of new ones.
func (in *ingester) take(source EventSource, events []pushevent.Pushed) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	now, taken := time.Now(), 0
	in.expire(now)
	if in.count(IngestPending)+len(events) > maxIngestions {
		return 0, errManyEvents
	}
	for _, e := range events {
		i := &Ingestion{ID: uuid.Must(uuid.NewV7()).String(), Source: source.Kind, Event: e, State: IngestPending, SeenUntil: now.Add(source.Window)}
		why, before := in.p.leavesOut(source, e), in.byID[in.seen[i.key()]]
		if why == "" && in.repeats(i, before, now) {
			why = "seen before"
		}
		if why != "" {
			in.log.Info("a push event is ignored", "source", source.Kind, "repository", e.Repository, "tag", e.Tag, "ref", e.Ref, "why", why)
			continue
		}
		if err := in.put(i); err != nil {
			return taken, err
		}
		if before != nil && before.State == IngestFailed {
			in.remove(before)
		}
		taken++
	}
	in.signal()
	return taken, nil
}

// repeats reports whether an event adds nothing to one like it that was taken before. After a failure it does: it is to be tried again. So does a commit that
// its branch has come back to from another: the Hub gives commits no other id than their own.
func (in *ingester) repeats(i, before *Ingestion, now time.Time) bool {
	if before == nil || before.State == IngestFailed || before.State != IngestPending && !now.Before(before.SeenUntil) {
		return false
	}
	since := func(other *Ingestion) bool { return other.ID > before.ID && in.lane(other) == in.lane(i) }
	return i.Event.Ref == "" || !slices.ContainsFunc(slices.Collect(maps.Values(in.byID)), since)
}

// signal has the work looked for.
func (in *ingester) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// put stores an ingestion. The caller holds the lock, as for the following.
func (in *ingester) put(i *Ingestion) error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err == nil {
		err = writeFileAtomic(filepath.Join(in.dir, i.ID+".json"), text)
	}
	if err == nil {
		in.remember(i)
	}
	return err
}

func (in *ingester) remember(i *Ingestion) {
	in.byID[i.ID] = i
	if key := i.key(); key != "" && in.seen[key] <= i.ID {
		in.seen[key] = i.ID
	}
}

// remove forgets an ingestion. A file that cannot be removed is read at the next start, and goes then.
func (in *ingester) remove(i *Ingestion) {
	os.Remove(filepath.Join(in.dir, i.ID+".json"))
	delete(in.byID, i.ID)
	if in.seen[i.key()] == i.ID {
		delete(in.seen, i.key())
	}
}

// expire forgets the ingestions whose time is over, and of the others of each end the oldest that are too many.
func (in *ingester) expire(now time.Time) {
	kept := map[string]int{}
	all := slices.SortedFunc(maps.Values(in.byID), byIngestionID)
	for _, i := range slices.Backward(all) {
		if kept[i.State]++; i.expired(now) || i.State != IngestPending && kept[i.State] > maxIngestions {
			in.remove(i)
		}
	}
}

func (in *ingester) count(state string) (n int) {
	for _, i := range in.byID {
		if i.State == state {
			n++
		}
	}
	return n
}

func byIngestionID(a, b *Ingestion) int { return strings.Compare(a.ID, b.ID) }

// list returns what is not through, oldest first.
func (in *ingester) list() []*Ingestion {
	in.mu.Lock()
	defer in.mu.Unlock()
	left := []*Ingestion{}
	for _, i := range slices.SortedFunc(maps.Values(in.byID), byIngestionID) {
		if i.State != IngestThrough {
			left = append(left, i)
		}
	}
	return left
}

// work brings packages in, some at the same time, until ctx is done. It returns when no attempt is under way any more.
func (in *ingester) work(ctx context.Context) {
	var attempts sync.WaitGroup
	defer attempts.Wait()
	for ctx.Err() == nil {
		due, pause := in.due(time.Now())
		for _, i := range due {
			attempts.Go(func() {
				in.try(ctx, *i)
				in.leave(i)
			})
		}
		select {
		case <-ctx.Done():
		case <-in.wake:
		case <-time.After(pause):
		}
	}
}

// due are the events to be tried now, whose lanes it closes, and the time until it has to be asked again. The oldest go first, but a source with many, which may be
// down, leaves room for the others.
//
// A lane has one attempt at a time, so that the pushes of a tag come in the order in which they are looked up at the source. One that waits for its next
// attempt does not keep its lane closed.
func (in *ingester) due(now time.Time) (due []*Ingestion, pause time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.expire(now)
	pause = time.Hour
	var ready []*Ingestion
	for _, i := range slices.SortedFunc(maps.Values(in.byID), byIngestionID) {
		switch {
		case i.State != IngestPending:
		case i.NextAt.After(now):
			pause = min(pause, i.NextAt.Sub(now))
		default:
			ready = append(ready, i)
		}
	}
	atWork := map[string]int{} // lanes, by source
	for _, source := range in.busy {
		atWork[source]++
	}
	for len(in.busy) < in.AtOnce {
		var next *Ingestion
		for _, i := range ready {
			if _, busy := in.busy[in.lane(i)]; !busy && (next == nil || atWork[i.Source] < atWork[next.Source]) {
				next = i
			}
		}
		if next == nil {
			break
		}
		in.busy[in.lane(next)] = next.Source
		atWork[next.Source]++
		due = append(due, next)
	}
	return due, pause
}

// lane is what events share that are brought in one after the other: a tag, and of a model store the model, whose newest version or branch has a tag as well.
func (in *ingester) lane(i *Ingestion) string {
	if i.Event.Model != "" {
		return i.Source + " " + i.Event.Repository
	}
	return i.Source + " " + i.Event.Repository + ":" + firstOf(i.Event.Tag, i.Event.Digest)
}

// leave opens the lane of an event after an attempt.
func (in *ingester) leave(i *Ingestion) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.busy, in.lane(i))
	in.signal()
}

// try makes one attempt and records what became of it.
func (in *ingester) try(ctx context.Context, i Ingestion) {
	err := in.bring(ctx, i)
	if ctx.Err() != nil && err != nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	now := time.Now()
	if err == nil {
		i.State, i.Error, i.ExpiresAt = IngestThrough, "", i.SeenUntil
		if i.key() == "" || in.put(&i) != nil {
			in.remove(&i) // else it is brought again, and joins its admission
		}
		return
	}
	i.Error = printable(withoutQueries(err.Error()), 300)
	i.NextAt, i.Attempts = now.Add(ingestPauses[min(i.Attempts, len(ingestPauses)-1)]), i.Attempts+1
	if i.Attempts > len(ingestPauses) || slices.ContainsFunc(ingestFinal, func(final error) bool { return errors.Is(err, final) }) {
		i.State, i.ExpiresAt = IngestFailed, now.Add(in.Keep)
	}
	in.log.Warn("what a push event tells of cannot be brought in", "event", i.ID, "source", i.Source, "repository", i.Event.Repository, "state", i.State, "error", withoutQueries(err.Error()))
	if err := in.put(&i); err != nil {
		in.log.Error("a push event cannot be written", "event", i.ID, "error", err)
		in.remember(&i) // it is not tried again at once
	}
}
