package registry

import (
	"context"
	"net/http"
	"net/url"
	"path"
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
	used            time.Time
	received        atomic.Int64 // bytes
}

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
		if time.Since(s.used) > uploadIdle {
			idle[session] = s
			delete(u.open, session)
		}
	}
	if ok = !full(); ok {
		u.pending++
	}
	return idle, ok
}

// settle takes back what reserve counted, when the request is through.
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
	s.used = time.Now()
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
	s.used = time.Now()
	return s, true
}

func (u *uploadTable) end(session string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.open, session)
}

// admitUpload lets a request of an upload through to a store or refuses it. The writer that it returns keeps the count, and settle is called
// when the request is through.
func (g *Gateway) admitUpload(w http.ResponseWriter, r *http.Request, rt route, to *store) (counted http.ResponseWriter, settle func(), err error) {
	who := Identity(r.Context())
	if rt.reference != "" {
		open, ok := g.uploads.use(rt.reference, who, rt.repository)
		if !ok {
			return nil, nil, refuse(http.StatusNotFound, codeBlobUploadUnknown, "no such upload")
		}
		limited, err := g.limitUpload(w, r, open.received.Load(), func(n int) { open.received.Add(int64(n)) })
		if err != nil {
			return nil, nil, err
		}
		return &uploadWriter{ResponseWriter: limited, done: func(status int) {
			if status == http.StatusCreated || status == http.StatusNotFound || r.Method == http.MethodDelete && status == http.StatusNoContent {
				g.uploads.end(rt.reference)
			}
		}}, func() {}, nil
	}
	begun := &upload{who: who, repository: rt.repository, store: to}
	limited, err := g.limitUpload(w, r, 0, func(n int) { begun.received.Add(int64(n)) })
	if err != nil {
		return nil, nil, err
	}
	idle, ok := g.uploads.reserve(who, g.limits)
	for session, s := range idle {
		if _, err := s.store.call(context.WithoutCancel(r.Context()), http.MethodDelete, route{kind: uploads, repository: s.repository, reference: session}.path(), "", nil); err != nil {
			g.log.Warn("an idle upload cannot be ended", "repository", s.repository, "cause", err)
		}
	}
	if !ok {
		return nil, nil, refuse(http.StatusTooManyRequests, codeTooManyRequests, "too many uploads are open: finish some, or try again later")
	}
	return &uploadWriter{ResponseWriter: limited, done: func(status int) {
		if to, err := url.Parse(w.Header().Get("Location")); err == nil && status == http.StatusAccepted {
			g.uploads.begin(path.Base(to.Path), begun)
		}
	}}, g.uploads.settle, nil
}

// uploadWriter tells the status of an answer before it is sent.
type uploadWriter struct {
	http.ResponseWriter
	done func(status int)
}

func (w *uploadWriter) WriteHeader(status int) {
	w.done(status)
	w.ResponseWriter.WriteHeader(status)
}
