package webhook

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// connectionTable has places for so many connections. What comes when all are taken waits in the kernel until one is free.
type connectionTable struct {
	places chan struct{}
	filled atomic.Int64 // times that all were taken
	tell   rate.Sometimes
	log    *slog.Logger
}

func newConnectionTable(n int, log *slog.Logger) *connectionTable {
	return &connectionTable{places: make(chan struct{}, n), tell: rate.Sometimes{Interval: time.Minute}, log: log}
}

func (t *connectionTable) full() {
	t.filled.Add(1)
	t.tell.Do(func() {
		t.log.Warn("all connections that may be open are; further clients wait", "limits.connections", cap(t.places))
	})
}

// boundedListener accepts no more connections than its table has places for.
type boundedListener struct {
	net.Listener
	table  *connectionTable
	closed chan struct{}
	close  func() error
}

func (t *connectionTable) bound(l net.Listener) *boundedListener {
	closed := make(chan struct{})
	return &boundedListener{l, t, closed, sync.OnceValue(func() error {
		close(closed)
		return l.Close()
	})}
}

// Close also ends an Accept that waits for a place: a server closes its connections only when nothing accepts any more.
func (l *boundedListener) Close() error { return l.close() }

// boundedConn is a TCP connection still, so that the kernel sends files over it (sendfile).
type boundedConn struct {
	*net.TCPConn
	leave func()
}

func (l *boundedListener) Accept() (net.Conn, error) {
	places := l.table.places
	select {
	case places <- struct{}{}:
	default:
		l.table.full()
		select {
		case places <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-places
		return nil, err
	}
	return &boundedConn{c.(*net.TCPConn), sync.OnceFunc(func() { <-places })}, nil
}

func (c *boundedConn) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}
