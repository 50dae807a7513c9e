package integration

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"grindstone/attest"
	"grindstone/webhook"
	"grindstone/webhook/queue"
)

// TestFaultsOfACluster kills the processes of an installation at random moments while models are pushed to it, and then looks whether
// anything was lost, left behind, or shown that should not have been.
func TestFaultsOfACluster(t *testing.T) {
	needFaults(t)
	c := startCluster(t)
	c.storm(faultPlan(*faultSeed, *faultCount, "server", "server", "sanitizer", "sanitizer", "worker-1", "worker-2", "nats-1", "nats-2", "nats-3", "upstream"))
}

// TestFaultsOfOneProcess is the same for a server that has everything inside, a tenth of the faults.
func TestFaultsOfOneProcess(t *testing.T) {
	needFaults(t)
	c := startAlone(t, "sanitizer: {workers: 1}\n")
	c.storm(faultPlan(*faultSeed, (*faultCount+9)/10, "server", "sanitizer"))
}

// settling is how long the work may take that is there when the last fault is over.
const settling = 3 * time.Minute

// storm carries out the plan over a stream of pushes and checks what is left.
func (c *cluster) storm(plan []fault) {
	c.Helper()
	c.Logf("seed %d, %d faults", *faultSeed, len(plan))
	pushing, enough := context.WithCancel(c.Context())
	watching, blind := context.WithCancel(c.Context())
	defer blind()
	w := c.startWatching(watching)
	p := c.startPushing(pushing)
	begin := time.Now()
	hits := map[string]int{}
	missed := 0
	for i, f := range plan {
		time.Sleep(f.Pause)
		done := ""
		if c.hit(f) {
			hits[f.Target]++
		} else {
			done = " (it does not run)"
			missed++
		}
		c.Logf("%7.1f s fault %4d: %s%s", time.Since(begin).Seconds(), i+1, f, done)
	}
	enough()
	c.awaitReady()
	p.work.Wait()
	c.Logf("%d pushes acknowledged, %d attempts were not; killed %v in %.0f s, %d faults found nothing to kill",
		len(p.acked), p.refused, hits, time.Since(begin).Seconds(), missed)
	begin = time.Now()
	c.settle(settling)
	c.Logf("settled after %.0f s", time.Since(begin).Seconds())

	c.checkStates(p)
	c.retryHeld()
	time.Sleep(time.Second) // for a last look
	blind()
	w.work.Wait()
	c.checkEnd(p, w)
}

// excusable are the reasons for which a model may be held after kills: what the operator retries.
var excusable = []webhook.Reason{webhook.ReasonCrashed, webhook.ReasonAttempts, webhook.ReasonInternal}

// checkStates sees to it that every acknowledged push has one admission, which has come to one end.
func (c *cluster) checkStates(p *pushers) {
	c.Helper()
	type model struct{ repository, digest string }
	admissions := map[model][]webhook.Admission{}
	for _, a := range c.admissions() {
		m := model{a.Source.Repository, a.Source.Digest}
		admissions[m] = append(admissions[m], a)
		if a.State == webhook.Denied || a.State == webhook.Held && !slices.Contains(excusable, a.Reason) {
			c.Errorf("%s is %s %s: %s", a.ID, a.State, a.Reason, a.Message)
		}
		for i, h := range a.History[1:] {
			if before := a.History[i].State; before.Final() && h.Message == "" { // not "pushed again", nor "taken up again"
				c.Errorf("%s went from %s to %s", a.ID, before, h.State)
			}
		}
	}
	for _, push := range p.acked {
		m := model{push.repository, push.digest}
		switch list := admissions[m]; {
		case len(list) != 1:
			c.Errorf("the acknowledged push of %s@%s has %d admissions", m.repository, m.digest, len(list))
		case !list[0].State.Final():
			c.Errorf("%s is %s", list[0].ID, list[0].State)
		case !slices.ContainsFunc(list[0].Tags, func(t webhook.Tag) bool { return t.Name == push.tag }):
			c.Errorf("%s does not know of the tag %s that was pushed", list[0].ID, push.tag)
		}
	}
	c.Logf("admissions: %v", c.states())
}

// retryHeld reads each held package as the operator, and gives it another try, which nothing disturbs now.
func (c *cluster) retryHeld() {
	c.Helper()
	tried := 0
	for _, a := range c.admissions() {
		if a.State != webhook.Held {
			continue
		}
		repo := c.asOperator(a.Source.Repository)
		if _, err := oras.Copy(c.Context(), repo, a.Source.Digest, memory.New(), "", oras.DefaultCopyOptions); err != nil {
			c.Errorf("the operator cannot read %s back from quarantine: %v", a.ID, err)
		}
		var now webhook.Admission
		if err := c.ask(c.Context(), http.MethodPost, "/api/v1/admissions/"+a.ID+"/retry", &now); err != nil {
			c.Errorf("retry %s: %v", a.ID, err)
		}
		tried++
	}
	c.settle(settling)
	for _, a := range c.admissions() {
		if a.State != webhook.Released {
			c.Errorf("undisturbed, %s is %s %s: %s", a.ID, a.State, a.Reason, a.Message)
		}
	}
	c.Logf("%d held models were retried", tried)
}

// asOperator is a repository for a client that logs in unasked: who may pull without a login is never asked for one.
func (c *cluster) asOperator(name string) *remote.Repository {
	c.Helper()
	repo := repositoryOf(c.T, c.address, name, "")
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth("gate", "gategate")
	repo.Client = &auth.Client{Header: r.Header}
	return repo
}

// checkEnd looks at all that must hold once every push has its final state.
func (c *cluster) checkEnd(p *pushers, w *watcher) {
	c.Helper()
	c.checkTags(p)
	c.checkContent(w)
	c.checkLeftovers()
	c.checkProcesses()
}

// checkTags sees to it that every tag points at what the newest push of it became.
func (c *cluster) checkTags(p *pushers) {
	c.Helper()
	released := map[string]string{}
	for _, a := range c.admissions() {
		if a.Released != nil {
			released[a.Source.Repository+"@"+a.Source.Digest] = a.Released.Digest
		}
	}
	newest := map[[2]string]string{}
	for _, push := range p.acked { // in order, for each repository has one pusher
		newest[[2]string{push.repository, push.tag}] = released[push.repository+"@"+push.digest]
	}
	for tag, want := range newest {
		for _, base := range []string{"http://" + c.address, c.upstream} {
			if base == "" {
				continue
			}
			if status, got, err := head(c.Context(), c.client, base+"/v2/"+tag[0]+"/manifests/"+tag[1]); err != nil || got != want {
				c.Errorf("%s has %s:%s at %q (%d, %v); the newest push of it became %s", base, tag[0], tag[1], got, status, err, want)
			}
		}
	}
}

// checkContent pulls everything that was released or that a tag ever pointed at, whole, and verifies its attestation.
func (c *cluster) checkContent(w *watcher) {
	c.Helper()
	key, err := attest.ReadPublicKey(filepath.Join(c.dir, "keys", "grindstone.pub"))
	if err != nil {
		c.Fatal(err)
	}
	all := map[string]bool{}
	for at := range w.seen {
		all[at.repository+"@"+at.digest] = true
	}
	seen := len(all)
	for _, a := range c.admissions() {
		all[a.Source.Repository+"@"+a.Released.Digest] = true
	}
	for reference := range all {
		if _, err := attest.VerifyRef(c.Context(), c.address+"/"+reference, key, attest.RefOptions{PlainHTTP: true}); err != nil {
			c.Errorf("%s does not verify: %v", reference, err)
		}
		repository, digest, _ := strings.Cut(reference, "@")
		if _, err := oras.Copy(c.Context(), repositoryOf(c.T, c.address, repository, ""), digest, memory.New(), "", oras.DefaultCopyOptions); err != nil {
			c.Errorf("%s cannot be pulled whole: %v", reference, err)
		}
	}
	c.Logf("tags were looked at %d times and pointed at %d digests; all of them, and %d released packages, were pulled and verified", w.asks, seen, len(all))
}

// checkLeftovers sees to it that nothing is left on the disk but what an operator may want to look at: the quarantine of released packages.
func (c *cluster) checkLeftovers() {
	c.Helper()
	if c.queue != "" {
		q, err := queue.Open(c.Context(), queue.Config{URL: c.queue, Replicas: 3})
		if err != nil {
			c.Fatal(err)
		}
		defer q.Close()
		var left []string
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
			if left, err = q.Left(c.Context()); err == nil && len(left) == 0 {
				break
			}
		}
		if err != nil || len(left) > 0 {
			c.Errorf("left in the queue: %q, %v", left, err)
		}
	}
	for _, g := range c.garbage().Garbage {
		if g.Kind != webhook.GarbagePackage || g.Why != "its admission is released" {
			c.Errorf("left behind: %+v", g)
		}
	}
	c.garbage("--remove")
	for _, g := range c.garbage().Garbage {
		c.Errorf("left behind after gc --remove: %+v", g)
	}
	for _, name := range slices.Sorted(maps.Keys(c.processes)) {
		if name != "server" {
			c.processes[name].stop()
		}
	}
	for _, dir := range c.folders {
		entries, err := os.ReadDir(filepath.Join(dir, "work"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			c.Error(err)
		}
		for _, e := range entries {
			c.Errorf("left behind: %s", filepath.Join(dir, "work", e.Name()))
		}
	}
}

var broken = regexp.MustCompile(`(?m)^(panic:|fatal error:|goroutine \d+ \[running\]).*`)

// checkProcesses sees to it that no process ended of itself: also a server or worker that finds nobody to talk to at its start waits.
func (c *cluster) checkProcesses() {
	c.Helper()
	for _, name := range slices.Sorted(maps.Keys(c.processes)) {
		p := c.processes[name]
		starts, unplanned := p.exits()
		c.Logf("%s was started %d times, and ended of itself %d times", name, starts, len(unplanned))
		for _, how := range unplanned {
			c.Errorf("%s ended: %s", name, how)
		}
		if text := broken.FindString(p.log.String()); text != "" {
			c.Errorf("%s: %s", name, text)
		}
	}
}
