package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote/auth"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// wire stands between two TCP peers and makes the way long, or cuts it.
type wire struct {
	address string
	pause   atomic.Int64 // nanoseconds that each piece of an answer waits
	cut     atomic.Int64 // bytes of requests after which a connection is cut; 0: never
	dead    atomic.Bool  // connections are taken and nothing comes back
}

// stretch listens on loopback and passes on to an address.
func stretch(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &wire{address: l.Addr().String()}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go w.join(from, to)
		}
	}()
	return w
}

func (w *wire) join(from net.Conn, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		defer from.Close()
		defer to.Close()
		buffer := make([]byte, 4<<10)
		for sent := int64(0); ; {
			n, err := from.Read(buffer)
			if sent += int64(n); err != nil || w.cut.Load() > 0 && sent > w.cut.Load() {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	_, _ = io.Copy(writer(func(p []byte) (int, error) {
		time.Sleep(time.Duration(w.pause.Load()))
		for w.dead.Load() {
			time.Sleep(50 * time.Millisecond)
		}
		return from.Write(p)
	}), to)
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestFaultsOfAnUpstream has the registry behind the server fail in each of its ways while a model is released to it. Nothing unattested is seen,
// a push that is begun meanwhile is acknowledged or refused, and when the registry is well again the models are released, by themselves or by a
// retry, and pushes are taken at once.
func TestFaultsOfAnUpstream(t *testing.T) {
	needFaults(t)
	registry := testregistry.Distribution(t, "")
	line := stretch(t, strings.TrimPrefix(registry, "http://"))
	statuses := testregistry.NewSwitch(t, "http://"+line.address)
	c := startAlone(t, "upstream: {url: "+statuses.URL+"}\n")
	c.upstream = registry
	watching, blind := context.WithCancel(t.Context())
	defer blind()
	w := c.startWatching(watching)
	p := &pushers{cluster: c}
	for i, trouble := range []struct {
		name       string
		begin, end func()
	}{
		{"500", func() { statuses.Answer(http.StatusInternalServerError) }, func() { statuses.Answer(0) }},
		{"429", func() { statuses.Answer(http.StatusTooManyRequests) }, func() { statuses.Answer(0) }},
		{"cut before the answer", func() { statuses.Answer(-1) }, func() { statuses.Answer(0) }},
		{"cut in the middle of uploads", func() { line.cut.Store(2000) }, func() { line.cut.Store(0) }},
		{"slow", func() { line.pause.Store(int64(time.Second)) }, func() { line.pause.Store(0) }},
		{"hanging", func() { line.dead.Store(true) }, func() { line.dead.Store(false) }},
	} {
		c.acknowledgedWithin(p, i, fmt.Sprintf("%s: before", trouble.name), 15*time.Second)
		c.awaitState(webhook.Sanitizing)
		trouble.begin()
		time.Sleep(8 * time.Second) // the release of the first falls into it
		meanwhile, _ := pack(t, tiny{name: trouble.name + ": meanwhile"}.file(t))
		err := c.pushOnce(p, i+1, meanwhile, 4*time.Second)
		t.Logf("%s: a push is answered with %v", trouble.name, err)
		trouble.end()
		if err := c.pushOnce(p, i+1, meanwhile, 15*time.Second); err != nil {
			t.Errorf("%s: a push when it is over: %v", trouble.name, err)
		}
		c.settle(settling)
		t.Logf("%s: %v", trouble.name, c.states())
	}
	c.checkStates(p)
	c.retryHeld()
	blind()
	w.work.Wait()
	c.checkEnd(p, w)
}

// acknowledgedWithin pushes a model once, which has to be taken in time.
func (c *cluster) acknowledgedWithin(p *pushers, tag int, name string, limit time.Duration) {
	c.Helper()
	store, _ := pack(c.T, tiny{name: name}.file(c.T))
	if err := c.pushOnce(p, tag, store, limit); err != nil {
		c.Errorf("%s: a push is not taken within %v: %v", name, limit, err)
	}
}

func (c *cluster) pushOnce(p *pushers, tag int, store *memory.Store, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(c.Context(), limit)
	defer cancel()
	repo := repositoryOf(c.T, c.address, repositoryOfPusher(0), "alice")
	if client, ok := repo.Client.(*auth.Client); ok {
		client.Client = http.DefaultClient // which repeats nothing
	}
	got, err := oras.Copy(ctx, store, "v1", repo, tagOfPush(tag), oras.DefaultCopyOptions)
	if err == nil {
		p.acked = append(p.acked, acknowledged{repositoryOfPusher(0), tagOfPush(tag), got.Digest.String()})
	}
	return err
}

// awaitState waits until an admission is in the state.
func (c *cluster) awaitState(s webhook.State) {
	c.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if n, err := c.inWork(c.Context(), s); err == nil && n > 0 {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("no admission is %s", s)
		}
	}
}

// states counts the admissions by state and reason.
func (c *cluster) states() map[string]int {
	count := map[string]int{}
	for _, a := range c.admissions() {
		count[strings.TrimSpace(string(a.State)+" "+string(a.Reason))]++
	}
	return count
}
