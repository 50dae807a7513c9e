package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"time"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote/retry"

	"grindstone/webhook/remotefile"
)

// notTaken is the error of another server that does not take what is released. The work is done, and waits to be handed over.
type notTaken struct {
	by    string // host
	cause string
}

func (n *notTaken) Error() string { return n.by + " does not take what is released: " + n.cause }

// handingOver marks an error as another server's, unless it came from here.
func handingOver(to string, err error) error {
	copied := (*oras.CopyError)(nil)
	if err == nil || errors.As(err, &copied) && copied.Origin == oras.CopyErrorOriginSource {
		return err
	}
	return &notTaken{to, withoutQueries(err.Error())}
}

var urlQuery = regexp.MustCompile(`(https?://[^\s"?]+)\?[^\s"]*`)

// withoutQueries leaves the queries of URLs out of a text: those of redirects are signed.
func withoutQueries(text string) string { return urlQuery.ReplaceAllString(text, "$1") }

// handovers are the releases that were not taken, and wait for another attempt.
type handovers struct {
	mu   sync.Mutex
	byID map[string]handover // of admissions
}

type handover struct {
	failed int // attempts
	next   time.Time
}

// fail notes a failed attempt and returns the pause before the next one; ok is false when there have been enough.
func (h *handovers) fail(id string) (pause time.Duration, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.byID[id].failed
	if n >= len(ingestPauses) {
		delete(h.byID, id)
		return 0, false
	}
	if h.byID == nil {
		h.byID = map[string]handover{}
	}
	h.byID[id] = handover{n + 1, time.Now().Add(ingestPauses[n])}
	return ingestPauses[n], true
}

// waits reports whether it is too early for another attempt.
func (h *handovers) waits(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.byID[id].next)
}

func (h *handovers) done(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byID, id)
}

// postpone has the present step of an admission taken up again after a pause, in which others are worked on. It reports false when that was done often enough.
func (p *Pipeline) postpone(a *Admission, why *notTaken) bool {
	pause, ok := p.handovers.fail(a.ID)
	if !ok {
		p.Log.Error("what is released is not taken, and is not offered any more", "admission", a.ID, "state", a.State, "error", why)
		return false
	}
	p.Log.Warn("what is released is not taken, and is offered again", "admission", a.ID, "state", a.State, "in", pause, "error", why)
	if _, err := p.store.Update(a.ID, func(now *Admission) {
		if now.State != a.State {
			return
		}
		now.enter(now.State, "", fmt.Sprintf("%s does not take what is released; tried again in %v", why.by, pause), time.Now().UTC())
	}); err != nil {
		p.Log.Error("the record of an admission cannot be written", "admission", a.ID, "error", err)
	}
	p.feeds.changed(a.ID)
	time.AfterFunc(pause, func() { p.backlog.add(a.ID) })
	return true
}

// registryClient is for registries that are not fronted. They may send for content to wherever they keep it, but what is sent to them goes to nobody else, and nothing
// that was begun by https goes on by http.
var registryClient = &http.Client{
	Transport: retry.NewTransport(remotefile.Transport{Base: http.DefaultTransport}),
	CheckRedirect: func(r *http.Request, via []*http.Request) error {
		from, reads := via[0].URL, r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case len(via) > maxRedirects:
			return fmt.Errorf("%w: %s redirects more than %d times", remotefile.ErrUnsupported, from.Host, maxRedirects)
		case r.URL.Scheme != "https" && r.URL.Scheme != from.Scheme || !reads && (r.URL.Host != from.Host || r.URL.Scheme != from.Scheme):
			return fmt.Errorf("%w: %s redirects %s to %s://%s", remotefile.ErrUnsupported, from.Host, r.Method, r.URL.Scheme, r.URL.Host)
		}
		return nil
	},
}

const maxRedirects = 5
