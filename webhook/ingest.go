package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"grindstone/webhook/pushevent"
	"grindstone/webhook/remotefile"
)

// EventSource is a registry that cannot be fronted, and tells of pushes to it.
type EventSource struct {
	Kind     string                       // one of pushevent.Parsers: its format, and the last part of the URL that it posts to
	Registry Remote                       // where what was pushed is pulled from
	Secret   string                       // that its requests show or sign with
	Window   time.Duration                // an event that is older is refused, and one that was taken is remembered for as long
	Timeout  time.Duration                // of one attempt to bring in what an event tells of; default 1 h
	Matches  func(repository string) bool // which repositories there are looked at
	Prefix   string                       // of their names here, as in "events/harbor/"
	Release  Remote                       // where what is released is pushed to; "" nowhere
	To       string                       // prefix of the names there, as in "released/"
	Models   *ModelRegistry               // in place of Registry and Release
	Hub      *ModelHub                    // in place of Registry
}

// ownRelease reports whether a repository of a source is one that releases are pushed to, its own or another source's: of those pushes it tells, too.
func (p *Pipeline) ownRelease(source EventSource, repository string) bool {
	return slices.ContainsFunc(p.Events, func(e EventSource) bool {
		return e.Release.Host != "" && e.Release.Same(source.Registry) && strings.HasPrefix(repository, e.To)
	})
}

// leavesOut says why an event is not taken; "" if it is.
func (p *Pipeline) leavesOut(source EventSource, pushed pushevent.Pushed) string {
	switch {
	case source.Hub != nil && pushed.Ref != "refs/heads/"+source.Hub.Branch:
		return "another ref"
	case !source.Matches(pushed.Repository):
		return "repository is not configured"
	case p.ownRelease(source, pushed.Repository):
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

// Same reports whether two addresses are of one registry.
func (r Remote) Same(other Remote) bool { return r.address() == other.address() }

func (r Remote) address() string {
	host := strings.ToLower(r.Host)
	if r.PlainHTTP {
		return strings.TrimSuffix(host, ":80")
	}
	return strings.TrimSuffix(host, ":443")
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
	repo.Client = &auth.Client{Client: registryClient, Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	return repo, nil
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
	ctx, cancel := source.within(ctx, "what %s tells of %s did not come", source.Kind, i.Event.Repository)
	defer cancel()
	err := in.bringFrom(ctx, source, i, identity)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

const (
	maxManifests     = 1000     // of a package: an index, those that it lists, and so on
	maxManifestBytes = 64 << 20 // of all of them, which are in memory while it is copied
)

// boundedGraph are the options of a copy that ends when the package has too many manifests.
func boundedGraph() oras.CopyGraphOptions {
	var mu sync.Mutex
	var number, bytes int64
	options := oras.DefaultCopyGraphOptions
	options.FindSuccessors = func(ctx context.Context, from content.Fetcher, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		return content.Successors(ctx, content.FetcherFunc(func(ctx context.Context, manifest ocispec.Descriptor) (io.ReadCloser, error) {
			mu.Lock()
			number, bytes = number+1, bytes+manifest.Size
			over := number > maxManifests || bytes > maxManifestBytes
			mu.Unlock()
			if over {
				return nil, fmt.Errorf("%w: the package has more than %d manifests, or they have more than %d bytes", remotefile.ErrUnsupported, maxManifests, maxManifestBytes)
			}
			return from.Fetch(ctx, manifest)
		}), d)
	}
	return options
}

// within bounds an attempt to bring something in, or back.
func (e EventSource) within(ctx context.Context, format string, args ...any) (context.Context, context.CancelFunc) {
	setDefault(&e.Timeout, time.Hour)
	return context.WithTimeoutCause(ctx, e.Timeout, fmt.Errorf(format+" within %v", append(args, e.Timeout)...))
}

// bringFrom is bring with the source at hand.
func (in *ingester) bringFrom(ctx context.Context, source EventSource, i Ingestion, identity string) error {
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
	if err := oras.CopyGraph(ctx, from, to, d, boundedGraph()); err != nil && !deniedByPolicy(err) {
		return err
	} else if err != nil {
		in.log.Info("what a push event tells of was denied", "event", i.ID, "repository", i.Event.Repository, "error", err)
		return nil // the admission says it
	}
	if i.Event.Tag == "" {
		return nil
	}
	// Events may come, or be tried again, in any order: the tag is of this package only if it still is there. The package is in quarantine all the same.
	if now, err := from.Resolve(ctx, i.Event.Tag); err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return fmt.Errorf("resolve %s: %w", i.Event.Tag, err)
	} else if err != nil || now.Digest != d.Digest {
		in.log.Info("a tag has gone on since a push event; it does not move here", "event", i.ID, "repository", i.Event.Repository, "tag", i.Event.Tag, "digest", d.Digest, "now", now.Digest)
		return nil
	}
	if err := to.Tag(ctx, d, i.Event.Tag); err != nil && !deniedByPolicy(err) {
		return fmt.Errorf("tag %s: %w", i.Event.Tag, err)
	}
	return nil
}

// pushBack brings a released package with its attestation to where its source wants it. Nothing has a tag there yet.
func (p *Pipeline) pushBack(ctx context.Context, a *Admission) error {
	source, repository, ok := p.eventSource(a.Source.Repository)
	if !ok || source.Models != nil && !source.pushed(a) {
		return nil
	}
	from, err := p.ownRepository(a.Source.Repository, "") // nobody, who sees only what is released: others may have attached to the package what is held
	if err != nil {
		return err
	}
	ctx, cancel := source.within(ctx, "%s was not there", repository)
	defer cancel()
	if source.Models != nil {
		err = p.registerFiles(ctx, a, source, from)
	} else {
		err = copyBack(ctx, a, source, repository, from)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return handingOver(source.releasesTo(), cause)
	}
	return err
}

// copyBack copies a released package with its attestation, by digest, to another registry.
func copyBack(ctx context.Context, a *Admission, source EventSource, repository string, from *remote.Repository) error {
	to, err := source.Release.repository(source.To + repository)
	if err != nil {
		return err
	}
	d, err := from.Resolve(ctx, a.Released.Attestation) // whose subject is the package
	if err != nil {
		return err
	}
	if err := oras.CopyGraph(ctx, from, to, d, oras.DefaultCopyGraphOptions); err != nil {
		return handingOver(source.releasesTo(), err)
	}
	att := strings.Replace(a.Released.Digest, ":", "-", 1) + ".att" // for older verifiers
	_, err = oras.Copy(ctx, from, att, to, att, oras.DefaultCopyOptions)
	return handingOver(source.releasesTo(), err)
}

// releasesTo is the host that gets what is released.
func (e EventSource) releasesTo() string {
	if e.Models != nil {
		return e.Models.Server.Host()
	}
	return e.Release.Host
}

// tagBack moves a tag where a source wants what is released. What is not there any more, as registries clean away what has no tag, or was released before they were
// configured, is brought there once more.
func (p *Pipeline) tagBack(ctx context.Context, a *Admission, tag string) error {
	source, repository, ok := p.eventSource(a.Source.Repository)
	if !ok || source.Models != nil && !source.pushed(a) {
		return nil
	}
	const limit = 30 * time.Second // other releases wait meanwhile
	if source.Models != nil {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return p.registerVersion(ctx, a, source, tag)
	}
	to, err := source.Release.repository(source.To + repository)
	if err != nil {
		return err
	}
	move := func() error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		_, err := oras.Tag(ctx, to, a.Released.Digest, tag)
		return err
	}
	if err = move(); errors.Is(err, errdef.ErrNotFound) {
		if err := p.pushBack(ctx, a); err != nil {
			return err
		}
		err = move()
	}
	return handingOver(source.releasesTo(), err)
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

// deniedByPolicy tells a push that this server has refused for good from one that may be repeated. What another registry forbids may be allowed later.
func deniedByPolicy(err error) bool {
	var refused *errcode.ErrorResponse
	return errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden && refused.URL.Host == ownHost
}
