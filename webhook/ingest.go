package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"

	"grindstone/webhook/pushevent"
	"grindstone/webhook/remotefile"
)

// EventSource is a registry that cannot be fronted, and tells of pushes to it.
type EventSource struct {
	Kind     string                       // one of pushevent.Parsers: its format, and the last part of the URL that it posts to
	Registry Remote                       // where what was pushed is pulled from
	Secret   string                       // that its requests show or sign with
	Window   time.Duration                // an event that is older is refused; default 24 h
	Matches  func(repository string) bool // which repositories there are looked at
	Prefix   string                       // of their names here, as in "events/harbor/"
	Release  Remote                       // where what is released is pushed to; "" nowhere
	To       string                       // prefix of the names there, as in "released/"
	Models   *ModelRegistry               // in place of Registry and Release
	Hub      *ModelHub                    // in place of Registry
}

// own reports whether a repository of the source is one that releases are pushed to: of those pushes it tells, too.
func (e EventSource) own(repository string) bool {
	return e.Release.Host != "" && e.Release.Host == e.Registry.Host && strings.HasPrefix(repository, e.To)
}

// leavesOut says why an event is not taken; "" if it is.
func (e EventSource) leavesOut(p pushevent.Pushed) string {
	switch {
	case e.Hub != nil && p.Ref != "refs/heads/"+e.Hub.Branch:
		return "another ref"
	case !e.Matches(p.Repository):
		return "repository is not configured"
	case e.own(p.Repository):
		return "release of this server"
	}
	return ""
}

// pushed reports whether an admission is of an event of this source, and not of a client that pushed where its packages go.
func (e EventSource) pushed(a *Admission) bool {
	return a.Source.Identity == "event:"+e.Kind || strings.HasPrefix(a.Source.Identity, "event:"+e.Kind+":")
}

// Remote is another registry.
type Remote struct {
	Host      string // host or host:port
	PlainHTTP bool
}

// repository is one of the other registry, with the credentials of Docker's configuration.
func (r Remote) repository(name string) (*remote.Repository, error) {
	repo, err := remote.NewRepository(r.Host + "/" + name)
	if err != nil {
		return nil, err
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, err
	}
	repo.PlainHTTP = r.PlainHTTP
	repo.Client = &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	return repo, nil
}

// Ingestion is a push event that was taken: the package is pulled from its registry and pushed to this one, as a client would.
type Ingestion struct {
	ID       string           `json:"id"`
	Source   string           `json:"source"` // kind
	Event    pushevent.Pushed `json:"event"`
	Attempts int              `json:"attempts"`
	NextAt   time.Time        `json:"next_at"`
	State    string           `json:"state"` // IngestPending or IngestFailed; what is through is gone
	Error    string           `json:"error,omitempty"`
}

// The states of an ingestion.
const (
	IngestPending = "pending"
	IngestFailed  = "failed"
)

// ingestPauses lie between the attempts.
var ingestPauses = []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, time.Hour, time.Hour}

// ingester keeps the events that were taken, a JSON file each, until their packages are in quarantine.
type ingester struct {
	p    *Pipeline
	dir  string
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex
	byID map[string]*Ingestion // values are never changed in place
	seen map[string]time.Time  // events taken, and until when they are remembered
}

func newIngester(p *Pipeline) (*ingester, error) {
	in := &ingester{
		p: p, dir: filepath.Join(p.Dir, "state", "events"), log: p.Log, wake: make(chan struct{}, 1), byID: map[string]*Ingestion{}, seen: map[string]time.Time{},
	}
	if err := os.MkdirAll(in.dir, 0o700); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(in.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var i Ingestion
		if err := json.Unmarshal(data, &i); err != nil || i.ID+".json" != filepath.Base(path) {
			in.log.Error("a push event that was taken cannot be read", "file", filepath.Base(path), "error", err)
			continue
		}
		in.byID[i.ID] = &i
	}
	return in, nil
}

// take records events, so that they are not lost when it returns. Those that were taken before are left out; it returns the number of new ones.
func (in *ingester) take(source EventSource, events []pushevent.Pushed) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	now, taken := time.Now(), 0
	for key, until := range in.seen {
		if now.After(until) {
			delete(in.seen, key)
		}
	}
	for _, e := range events {
		key := strings.Join([]string{source.Kind, e.ID, e.Repository, e.Tag, e.Digest}, "\x00")
		why := source.leavesOut(e)
		if _, dup := in.seen[key]; why == "" && e.ID != "" && dup {
			why = "seen before"
		}
		if why != "" {
			in.log.Info("a push event is ignored", "source", source.Kind, "repository", e.Repository, "tag", e.Tag, "ref", e.Ref, "why", why)
			continue
		}
		i := &Ingestion{ID: uuid.Must(uuid.NewV7()).String(), Source: source.Kind, Event: e, State: IngestPending}
		if err := in.put(i); err != nil {
			return taken, err
		}
		in.seen[key] = now.Add(source.Window)
		taken++
	}
	select {
	case in.wake <- struct{}{}:
	default:
	}
	return taken, nil
}

// put stores an ingestion. The caller holds the lock.
func (in *ingester) put(i *Ingestion) error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err == nil {
		err = writeFileAtomic(filepath.Join(in.dir, i.ID+".json"), text)
	}
	if err == nil {
		in.byID[i.ID] = i
	}
	return err
}

// list returns what is not through, oldest first.
func (in *ingester) list() []*Ingestion {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := []*Ingestion{}
	for _, i := range in.byID {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *Ingestion) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// work brings packages in, one at a time, until ctx is done.
func (in *ingester) work(ctx context.Context) {
	for ctx.Err() == nil {
		pause := time.Hour
		for _, i := range in.list() {
			if i.State != IngestPending {
				continue
			}
			if wait := time.Until(i.NextAt); wait > 0 {
				pause = min(pause, wait)
				continue
			}
			in.try(ctx, *i)
			pause = 0
		}
		select {
		case <-ctx.Done():
		case <-in.wake:
		case <-time.After(pause):
		}
	}
}

// try makes one attempt and records what became of it.
func (in *ingester) try(ctx context.Context, i Ingestion) {
	err := in.bring(ctx, i)
	if ctx.Err() != nil && err != nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err == nil {
		delete(in.byID, i.ID)
		os.Remove(filepath.Join(in.dir, i.ID+".json")) // else it is brought again, and joins its admission
		return
	}
	i.Error = printable(err.Error(), 300)
	i.NextAt, i.Attempts = time.Now().Add(ingestPauses[min(i.Attempts, len(ingestPauses)-1)]), i.Attempts+1
	if i.Attempts > len(ingestPauses) || slices.ContainsFunc(ingestFinal, func(final error) bool { return errors.Is(err, final) }) {
		i.State = IngestFailed
	}
	in.log.Warn("what a push event tells of cannot be brought in", "event", i.ID, "source", i.Source, "repository", i.Event.Repository, "state", i.State, "error", err)
	if err := in.put(&i); err != nil {
		in.log.Error("a push event cannot be written", "event", i.ID, "error", err)
	}
}

var errNoSource = errors.New("the source is not configured any more")

// ingestFinal are the errors that another attempt would find again.
var ingestFinal = []error{errdef.ErrNotFound, errNoSource, remotefile.ErrNotFound, remotefile.ErrUnsupported}

// bring copies the package, or the model, to this server's own registry, where it is intercepted like any push.
func (in *ingester) bring(ctx context.Context, i Ingestion) error {
	n := slices.IndexFunc(in.p.Events, func(s EventSource) bool { return s.Kind == i.Source })
	if n < 0 {
		return fmt.Errorf("%w: %s", errNoSource, i.Source)
	}
	source := in.p.Events[n]
	identity := "event:" + source.Kind
	if i.Event.Actor != "" {
		identity += ":" + i.Event.Actor
	}
	to, err := in.p.ownRepository(source.Prefix+i.Event.Repository, identity)
	if err != nil {
		return err
	}
	if source.Models != nil {
		return in.bringVersion(ctx, source, i, to)
	}
	if source.Hub != nil {
		return in.bringCommit(ctx, source.Hub, i, to)
	}
	from, err := source.Registry.repository(i.Event.Repository)
	if err != nil {
		return err
	}
	reference := firstOf(i.Event.Digest, i.Event.Tag)
	d, err := from.Resolve(ctx, reference)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", reference, err)
	}
	if err := oras.CopyGraph(ctx, from, to, d, oras.DefaultCopyGraphOptions); err != nil && !deniedByPolicy(err) {
		return err
	} else if err != nil {
		in.log.Info("what a push event tells of was denied", "event", i.ID, "repository", i.Event.Repository, "error", err)
		return nil // the admission says it
	}
	if i.Event.Tag == "" {
		return nil
	}
	if err := to.Tag(ctx, d, i.Event.Tag); err != nil && !deniedByPolicy(err) {
		return fmt.Errorf("tag %s: %w", i.Event.Tag, err)
	}
	return nil
}

// pushBack copies a released package with its attestations, by digest, to where its source wants it. Nothing has a tag there yet.
func (p *Pipeline) pushBack(ctx context.Context, a *Admission) error {
	source, repository, ok := p.eventSource(a.Source.Repository)
	if !ok {
		return nil
	}
	if source.Models != nil && !source.pushed(a) {
		return nil
	}
	from, err := p.ownRepository(a.Source.Repository, "event:"+source.Kind)
	if err != nil {
		return err
	}
	if source.Models != nil {
		return p.registerFiles(ctx, a, source, from)
	}
	to, err := source.Release.repository(source.To + repository)
	if err != nil {
		return err
	}
	d, err := from.Resolve(ctx, a.Released.Digest)
	if err != nil {
		return err
	}
	if err := oras.ExtendedCopyGraph(ctx, from, to, d, oras.DefaultExtendedCopyGraphOptions); err != nil {
		return fmt.Errorf("push to %s: %w", source.Release.Host, err)
	}
	att := strings.Replace(a.Released.Digest, ":", "-", 1) + ".att" // for older verifiers
	_, err = oras.Copy(ctx, from, att, to, att, oras.DefaultCopyOptions)
	return err
}

// tagBack moves a tag where a source wants what is released.
func (p *Pipeline) tagBack(ctx context.Context, a *Admission, tag string) error {
	source, repository, ok := p.eventSource(a.Source.Repository)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // pushes wait meanwhile
	defer cancel()
	if source.Models != nil && !source.pushed(a) {
		return nil
	}
	if source.Models != nil {
		return p.registerVersion(ctx, a, source, tag)
	}
	to, err := source.Release.repository(source.To + repository)
	if err != nil {
		return err
	}
	_, err = oras.Tag(ctx, to, a.Released.Digest, tag)
	return err
}

// eventSource finds the source of a repository whose releases are pushed back, and the repository's name there.
func (p *Pipeline) eventSource(repository string) (EventSource, string, bool) {
	for _, s := range p.Events {
		if name, ok := strings.CutPrefix(repository, s.Prefix); ok && (s.Release.Host != "" || s.Models != nil) {
			return s, name, true
		}
	}
	return EventSource{}, "", false
}

// deniedByPolicy tells a push that was refused for good from one that may be repeated.
func deniedByPolicy(err error) bool {
	return strings.Contains(err.Error(), fmt.Sprintf("response status code %d", http.StatusForbidden))
}
