package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxDeliveries is how many deliveries that came to an end are kept.
const maxDeliveries = 1000

// notifier delivers events to targets, at least once, and keeps the history: one JSON file a delivery, replaced atomically. Every
// target has a worker of its own, so that a slow one delays no other.
type notifier struct {
	dir     string
	host    string
	targets []Target
	pauses  []time.Duration
	keep    int // deliveries that came to an end
	metrics *metrics
	log     *slog.Logger
	client  *http.Client

	changing sync.Mutex // held from reading a delivery to storing what becomes of it

	mu   sync.Mutex
	byID map[string]*Delivery     // values are never changed in place
	wake map[string]chan struct{} // by target; holds one token when there may be something to do
}

func newNotifier(dir, host string, targets []Target, pauses []time.Duration, m *metrics, log *slog.Logger) (*notifier, error) {
	n := &notifier{
		dir: dir, host: host, targets: targets, pauses: pauses, keep: maxDeliveries, metrics: m, log: log, byID: map[string]*Delivery{}, wake: map[string]chan struct{}{},
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		var d Delivery
		if err := json.Unmarshal(data, &d); err != nil || d.ID+".json" != e.Name() {
			log.Error("the history of a notification cannot be read", "file", e.Name(), "error", err)
			continue
		}
		n.byID[d.ID] = &d
	}
	for _, t := range targets {
		n.wake[t.Name] = make(chan struct{}, 1)
	}
	return n, nil
}

// start begins to deliver until ctx is done.
func (n *notifier) start(ctx context.Context, group *sync.WaitGroup) {
	for _, t := range n.targets {
		group.Go(func() { n.work(ctx, t) })
	}
}

// tell makes the deliveries of an admission's present state. Doing so twice makes them once.
func (n *notifier) tell(a *Admission) error {
	e := newEvent(n.host, a)
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	for _, t := range n.targets {
		if !t.wants(a) {
			continue
		}
		d := Delivery{ID: e.ID + "." + t.Name, Target: t.Name, Admission: a.ID, Event: text, State: DeliveryPending, Attempts: []Attempt{}, CreatedAt: time.Now().UTC()}
		if _, known := n.get(d.ID); known {
			continue
		}
		if err := n.put(&d); err != nil {
			return err
		}
		n.signal(t.Name)
	}
	return nil
}

// redeliver sends an event again, whatever became of it before.
func (n *notifier) redeliver(id string) (*Delivery, error) {
	n.changing.Lock()
	defer n.changing.Unlock()
	d, ok := n.get(id)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if n.wake[d.Target] == nil {
		return nil, fmt.Errorf("%w: %s", errNoTarget, d.Target)
	}
	again := *d
	again.State, again.NextAt, again.Tries = DeliveryPending, time.Time{}, 0
	if err := n.put(&again); err != nil {
		return nil, err
	}
	n.signal(d.Target)
	return &again, nil
}

func (n *notifier) get(id string) (*Delivery, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, ok := n.byID[id]
	return d, ok
}

// list returns the deliveries that match, newest first.
func (n *notifier) list(match func(*Delivery) bool) []*Delivery {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := []*Delivery{}
	for _, d := range n.byID {
		if match(d) {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b *Delivery) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return all
}

// put stores a delivery and removes the oldest that came to an end, over the number kept.
func (n *notifier) put(d *Delivery) error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFileAtomic(filepath.Join(n.dir, d.ID+".json"), text); err != nil {
		return err
	}
	n.mu.Lock()
	n.byID[d.ID] = d
	n.mu.Unlock()
	ended := n.list(func(d *Delivery) bool { return d.State != DeliveryPending })
	for _, old := range ended[min(len(ended), n.keep):] {
		n.mu.Lock()
		delete(n.byID, old.ID)
		n.mu.Unlock()
		os.Remove(filepath.Join(n.dir, old.ID+".json"))
	}
	return nil
}

func (n *notifier) signal(target string) {
	select {
	case n.wake[target] <- struct{}{}:
	default:
	}
}

// work delivers what is due for a target, the longest due first.
func (n *notifier) work(ctx context.Context, t Target) {
	for ctx.Err() == nil {
		pause := time.Hour
		if d := n.next(t.Name); d != nil {
			if pause = time.Until(d.NextAt); pause <= 0 {
				n.deliver(ctx, t, d)
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-n.wake[t.Name]:
		case <-time.After(pause):
		}
	}
}

// next is the delivery to the target that is due first, or nil.
func (n *notifier) next(target string) *Delivery {
	pending := n.list(func(d *Delivery) bool { return d.Target == target && d.State == DeliveryPending })
	if len(pending) == 0 {
		return nil
	}
	slices.Reverse(pending) // of those due at once the oldest
	return slices.MinFunc(pending, func(a, b *Delivery) int { return a.NextAt.Compare(b.NextAt) })
}

// deliver makes one attempt and records it. What the server's end interrupts has not been tried.
func (n *notifier) deliver(ctx context.Context, t Target, d *Delivery) {
	begin := time.Now()
	status, after, err := n.post(ctx, t, d)
	if err != nil && ctx.Err() != nil {
		return
	}
	a := Attempt{At: begin.UTC(), Seconds: time.Since(begin).Seconds(), Status: status}
	outcome := "ok"
	if err != nil {
		outcome, a.Error = "failed", printable(err.Error(), 300)
	}
	n.metrics.notified(t.Name, outcome)
	if err := n.record(d, a, after); err != nil {
		n.log.Error("the history of a notification cannot be written", "delivery", d.ID, "error", err)
		select { // do not send it again and again
		case <-ctx.Done():
		case <-time.After(time.Minute):
		}
	}
}

// record stores an attempt at a delivery, as that was when the attempt began. If it was asked for again meanwhile, that is still to be done.
func (n *notifier) record(begun *Delivery, a Attempt, after time.Duration) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	d := *begun
	d.Attempts = slices.Clone(d.Attempts)
	d.attempted(a, n.pauses, after)
	if now, ok := n.get(d.ID); ok && now != begun {
		d.State, d.NextAt, d.Tries = now.State, now.NextAt, now.Tries
	}
	if a.Error != "" {
		n.log.Warn("a notification was not delivered", "delivery", d.ID, "state", d.State, "next", d.NextAt, "error", a.Error)
	}
	return n.put(&d)
}

// post sends the event. Only an answer of 2xx is a delivery.
func (n *notifier) post(ctx context.Context, t Target, d *Delivery) (status int, after time.Duration, err error) {
	timeout := t.Timeout
	if timeout <= 0 {
		timeout = 15 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var body bytes.Buffer
	if err := json.Compact(&body, d.Event); err != nil {
		return 0, 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body.Bytes()))
	if err != nil {
		return 0, 0, errors.New("the target's URL cannot be used")
	}
	r.Header.Set("Content-Type", cloudEventsJSON)
	r.Header.Set("User-Agent", "grindstone")
	signWebhook(r, t.Secret, d.ID, time.Now(), body.Bytes())
	answer, err := n.client.Do(r)
	if err != nil {
		return 0, 0, withoutURL(err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return answer.StatusCode, retryAfter(answer.Header), fmt.Errorf("the target answers %s", answer.Status)
	}
	return answer.StatusCode, 0, nil
}

// withoutURL takes the URL out of an error of net/http: it may hold a token.
func withoutURL(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
