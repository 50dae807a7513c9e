package webhook

import (
	"context"
	"sync"
)

// backlog is the line of admissions that wait for a worker, first in first out, each at most once. It lives in memory: the
// records on disk say at start who waits.
type backlog struct {
	mu      sync.Mutex
	ids     []string
	waiting map[string]bool
	working map[string]bool // an admission has at most one worker
	ready   chan struct{}   // holds one token when there may be something to take
}

func newBacklog() *backlog {
	return &backlog{waiting: map[string]bool{}, working: map[string]bool{}, ready: make(chan struct{}, 1)}
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
	for i, id := range q.ids {
		if !q.working[id] {
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

func (q *backlog) done(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.working, id)
	q.signal()
}

func (q *backlog) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// depth returns how many admissions wait and how many are being worked on.
func (q *backlog) depth() (waiting, working int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ids), len(q.working)
}
