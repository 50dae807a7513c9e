package webhook

import (
	"context"
	"slices"
	"sync"
)

// backlog is the line of admissions that wait for a worker, first in first out among those of an identity, each at most once. It lives in memory: the
// records on disk say at start who waits.
type backlog struct {
	mu      sync.Mutex
	ids     []string
	waiting map[string]bool
	working map[string]bool // an admission is worked on once at a time
	asking  map[string]bool // those of them whose job no worker has taken out of the queue yet
	ready   chan struct{}   // holds one token when there may be something to take

	each     int                    // admissions of one identity that are worked on at the same time; 0 is no limit
	identity func(id string) string // who pushed an admission, "" unknown; needed with each
}

func newBacklog() *backlog {
	return &backlog{waiting: map[string]bool{}, working: map[string]bool{}, asking: map[string]bool{}, ready: make(chan struct{}, 1)}
}

// limit bounds how many admissions of one identity are worked on at the same time.
func (q *backlog) limit(each int, identity func(id string) string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.each, q.identity = each, identity
}

// add puts the admission at the end of the line, unless it is in the line.
func (q *backlog) add(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.waiting[id] {
		q.waiting[id] = true
		q.ids = append(q.ids, id)
	}
	q.signal()
}

// claim takes the admission out of the line, unless somebody works on it. The caller calls done when it is through with it.
func (q *backlog) claim(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.working[id] {
		return false
	}
	if i := slices.Index(q.ids, id); i >= 0 {
		q.ids = slices.Delete(q.ids, i, i+1)
	}
	delete(q.waiting, id)
	q.working[id] = true
	return true
}

// take waits for an admission that nobody works on. The caller calls done when it is through with it.
func (q *backlog) take(ctx context.Context) (string, bool) {
	for {
		if id, ok := q.first(); ok {
			return id, true
		}
		select {
		case <-ctx.Done():
			return "", false
		case <-q.ready:
		}
	}
}

func (q *backlog) first() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	busy := q.busy()
	for i, id := range q.ids {
		if !q.working[id] && (len(busy) == 0 || !busy[q.identity(id)]) {
			q.ids = append(q.ids[:i:i], q.ids[i+1:]...)
			delete(q.waiting, id)
			q.working[id] = true
			if len(q.ids) > 0 {
				q.signal() // for another worker
			}
			return id, true
		}
	}
	return "", false
}

// busy are the identities of whom as many admissions as may be are being worked on: those of others go first.
func (q *backlog) busy() map[string]bool {
	busy, works := map[string]bool{}, map[string]int{}
	if q.each == 0 {
		return busy
	}
	for id := range q.working {
		who := q.identity(id)
		works[who]++
		busy[who] = who != "" && works[who] >= q.each
	}
	return busy
}

func (q *backlog) done(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.working, id)
	delete(q.asking, id)
	q.signal()
}

func (q *backlog) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// asks notes whether the job of an admission that is being worked on waits for a worker.
func (q *backlog) asks(id string, waits bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if waits && q.working[id] {
		q.asking[id] = true
		return
	}
	delete(q.asking, id)
}

// waits reports whether nobody works on an admission but a worker is to.
func (q *backlog) waits(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting[id] && !q.working[id] || q.asking[id]
}

// depth returns how many admissions wait for a worker and how many are being worked on.
func (q *backlog) depth() (waiting, working int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ids) + len(q.asking), len(q.working) - len(q.asking)
}

// pushedBy is the identity of who pushed an admission first.
func (p *Pipeline) pushedBy(id string) string {
	a, ok := p.store.Get(id)
	if !ok {
		return ""
	}
	return a.Source.Identity
}
