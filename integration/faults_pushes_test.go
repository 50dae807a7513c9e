package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"

	"grindstone/webhook"
)

// acknowledged is a push that was answered 201.
type acknowledged struct{ repository, tag, digest string }

// pushers push models, each to a repository of its own and one after the other, so that the order of pushes to a tag is known.
type pushers struct {
	*cluster
	work sync.WaitGroup

	mu      sync.Mutex
	acked   []acknowledged
	refused int // attempts without an answer of 201
}

const (
	pushersAtWork = 3
	tagsEach      = 12
	enoughInWork  = 10
)

func repositoryOfPusher(n int) string { return fmt.Sprintf("models/of-%d", n) }
func tagOfPush(i int) string          { return fmt.Sprintf("v%d", i%tagsEach) }

// startPushing pushes until ctx is done, and what was begun then until it is acknowledged.
func (c *cluster) startPushing(ctx context.Context) *pushers {
	p := &pushers{cluster: c}
	for n := range pushersAtWork {
		p.work.Go(func() {
			var store *memory.Store
			var pushed ocispec.Descriptor
			for i := 0; ctx.Err() == nil; i++ {
				if store == nil || i%8 != 7 { // every eighth push is of the same model again, under another tag
					store, pushed = pack(c.T, tiny{name: fmt.Sprintf("model %d of pusher %d", i, n)}.file(c.T))
				}
				p.push(n, tagOfPush(i), store, pushed)
				p.pace(ctx)
			}
		})
	}
	return p
}

// push repeats a push, as a client's operator would, until it is acknowledged.
func (p *pushers) push(n int, tag string, store *memory.Store, pushed ocispec.Descriptor) {
	for p.Context().Err() == nil {
		ctx, cancel := context.WithTimeout(p.Context(), 20*time.Second)
		got, err := oras.Copy(ctx, store, "v1", repositoryOf(p.T, p.address, repositoryOfPusher(n), "alice"), tag, oras.DefaultCopyOptions)
		cancel()
		p.mu.Lock()
		if err == nil {
			p.acked = append(p.acked, acknowledged{repositoryOfPusher(n), tag, got.Digest.String()})
			if got.Digest != pushed.Digest {
				p.Errorf("a push of %s is answered with %s", pushed.Digest, got.Digest)
			}
			p.mu.Unlock()
			return
		}
		p.refused++
		p.mu.Unlock()
		time.Sleep(200 * time.Millisecond)
	}
}

// pace waits until there is not more work than two workers have a chance to do.
func (p *pushers) pace(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(300 * time.Millisecond)
		if n, err := p.inWork(ctx, webhook.Quarantined, webhook.Sanitizing); err == nil && n < enoughInWork {
			return
		}
	}
}

// watcher looks at the tags all the time.
type watcher struct {
	*cluster
	work sync.WaitGroup

	mu   sync.Mutex
	seen map[acknowledged]time.Time // what a tag pointed at
	asks int
}

// startWatching looks at the pushers' tags, through the server and behind it, until ctx is done.
func (c *cluster) startWatching(ctx context.Context) *watcher {
	w := &watcher{cluster: c, seen: map[acknowledged]time.Time{}}
	bases := []string{"http://" + c.address}
	if c.upstream != "" {
		bases = append(bases, c.upstream)
	}
	for _, base := range bases {
		w.work.Go(func() {
			for ctx.Err() == nil {
				for n := range pushersAtWork {
					for i := range tagsEach {
						w.look(ctx, base, repositoryOfPusher(n), tagOfPush(i))
					}
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	return w
}

// look asks what a tag points at. What is seen for the first time behind the server must have its attestation there already.
func (w *watcher) look(ctx context.Context, base, repository, tag string) {
	status, digest, err := head(ctx, w.client, base+"/v2/"+repository+"/manifests/"+tag)
	w.mu.Lock()
	w.asks++
	at := acknowledged{repository, tag, digest}
	_, known := w.seen[at]
	if err != nil || status != http.StatusOK || known {
		w.mu.Unlock()
		return
	}
	w.seen[at] = time.Now()
	w.mu.Unlock()
	if base != w.upstream {
		return
	}
	for ctx.Err() == nil { // its fallback tag, for distribution has no referrers; again while it is killed
		status, _, err := head(ctx, w.client, base+"/v2/"+repository+"/manifests/sha256-"+digest[len("sha256:"):])
		if err == nil && status == http.StatusNotFound {
			w.Errorf("%s:%s points at %s, and that has no attestation", repository, tag, digest)
		}
		if err == nil && (status == http.StatusOK || status == http.StatusNotFound) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func head(ctx context.Context, client *http.Client, url string) (status int, digest string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Accept", ocispec.MediaTypeImageManifest+", "+ocispec.MediaTypeImageIndex)
	answer, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	answer.Body.Close()
	return answer.StatusCode, answer.Header.Get("Docker-Content-Digest"), nil
}

// garbage is what `grindstone gc` shows.
func (c *cluster) garbage(more ...string) webhook.Collection {
	c.Helper()
	args := append([]string{"gc", "--server", "http://gate:gategate@" + c.address, "--older-than", "0s", "--json"}, more...)
	text, err := c.grindstone(args...)
	var found webhook.Collection
	if err != nil || json.Unmarshal([]byte(text), &found) != nil {
		c.Fatalf("grindstone gc: %v\n%s", err, text)
	}
	return found
}
