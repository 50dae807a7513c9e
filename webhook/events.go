package webhook

import (
	"fmt"
	"sync"

	"grindstone/sanitize"
)

// Event is one event of an admission's progress: either a change of state or a line of the sanitizer's progress.
//
// Its ID is "C.P": C counts the changes of the admission's history so far, P the progress lines since the last change. Changes
// are on disk and can always be asked for again; progress lines are kept in memory, the newest of the present state only.
type Event struct {
	Change   int
	Line     int
	State    *Change            // set for a change
	Progress *sanitize.Progress // set for a progress line
}

// ID returns the event's id for Last-Event-ID.
func (e Event) ID() string { return fmt.Sprintf("%d.%d", e.Change, e.Line) }

// after reports whether e comes after the position (change, line).
func (e Event) after(change, line int) bool {
	return e.Change > change || e.Change == change && e.Line > line
}

const feedLines = 256 // progress lines kept for one admission

// feeds hold the progress lines of the admissions that are being worked on, and wake those who follow them.
type feeds struct {
	mu    sync.Mutex
	lines map[string][]Event
	wake  map[string]chan struct{}
	ended bool
}

func newFeeds() *feeds {
	return &feeds{lines: map[string][]Event{}, wake: map[string]chan struct{}{}}
}

// changed tells followers that the admission's record changed; the lines of the state before are dropped.
func (f *feeds) changed(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.lines, id)
	f.notify(id)
}

// progress adds a line for an admission that has entered change states so far.
func (f *feeds) progress(id string, change int, p sanitize.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines, n := f.lines[id], 0
	if len(lines) > 0 {
		n = lines[len(lines)-1].Line
	}
	lines = append(lines, Event{Change: change, Line: n + 1, Progress: &p})
	if len(lines) > feedLines {
		lines = append([]Event(nil), lines[len(lines)-feedLines:]...)
	}
	f.lines[id] = lines
	f.notify(id)
}

func (f *feeds) notify(id string) {
	if c, ok := f.wake[id]; ok {
		close(c)
		delete(f.wake, id)
	}
}

// end wakes every follower for good: the server shuts down.
func (f *feeds) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for id := range f.wake {
		f.notify(id)
	}
}

// watch returns the progress lines at hand, a channel that is closed at the next event, and whether the server shuts down.
// Take the channel before reading the record, so that no change falls between the two.
func (f *feeds) watch(id string) (lines []Event, next <-chan struct{}, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.wake[id]
	if !ok {
		c = make(chan struct{})
		f.wake[id] = c
	}
	return append([]Event(nil), f.lines[id]...), c, f.ended
}

// eventsAfter merges the record's history and the progress lines to the events after the position, in order.
func eventsAfter(a *Admission, lines []Event, change, line int) []Event {
	var events []Event
	for i := range a.History {
		if e := (Event{Change: a.Dropped + i + 1, State: &a.History[i]}); e.after(change, line) {
			events = append(events, e)
		}
	}
	for _, e := range lines {
		if e.Change == a.changes() && e.after(change, line) {
			events = append(events, e)
		}
	}
	return events
}
