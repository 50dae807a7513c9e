package registry

import (
	"sync"
	"sync/atomic"
	"time"
)

// uploadTable has the open uploads of the stores on this disk, each of which holds a file open. They are bounded, altogether and for each identity,
// and belong to who began them.
type uploadTable struct {
	mu      sync.Mutex
	open    map[string]*upload // by session
	pending int                // requests that may open one
}

type upload struct {
	who, repository string
	store           *store
	used            atomic.Int64 // when it was last gone on with, Unix nanoseconds
	received        atomic.Int64 // bytes
}

// took counts bytes that have come. An upload of which some come is not idle, however long it takes.
func (s *upload) took(n int) {
	s.received.Add(int64(n))
	s.touch()
}

func (s *upload) touch() { s.used.Store(time.Now().UnixNano()) }

func (s *upload) idle() bool { return time.Since(time.Unix(0, s.used.Load())) > uploadIdle }

// uploadIdle is how long an upload that nobody goes on with keeps its place when others need it.
const uploadIdle = 15 * time.Minute

// reserve makes room for one more upload. It returns the sessions that were idle for too long, which have lost their places, and
// false where there is no room.
func (u *uploadTable) reserve(who string, limits Limits) (idle map[string]*upload, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	full := func() bool {
		own := 0
		for _, s := range u.open {
			if s.who == who {
				own++
			}
		}
		return len(u.open)+u.pending >= limits.Uploads || who != "" && own >= limits.UploadsEach
	}
	if !full() {
		u.pending++
		return nil, true
	}
	idle = map[string]*upload{}
	for session, s := range u.open {
		if s.idle() {
			idle[session] = s
			delete(u.open, session)
		}
	}
	if ok = !full(); ok {
		u.pending++
	}
	return idle, ok
}

// settle takes back what reserve counted.
func (u *uploadTable) settle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pending--
}

func (u *uploadTable) begin(session string, s *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open == nil {
		u.open = map[string]*upload{}
	}
	s.touch()
	u.open[session] = s
}

// use returns an upload if it is open and the identity's, and keeps it from becoming idle.
func (u *uploadTable) use(session, who, repository string) (*upload, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.open[session]
	if s == nil || s.who != who || s.repository != repository {
		return nil, false
	}
	s.touch()
	return s, true
}

// end takes an upload out of the table. nil if it is not there.
func (u *uploadTable) end(session string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.open[session]
	delete(u.open, session)
	return s
}
