package main

import (
	"net"
	"sync"
)

// boundedListener has no more than so many connections open. What comes when all places are taken waits in the kernel until one is free.
type boundedListener struct {
	*net.TCPListener
	places chan struct{}
	closed chan struct{}
	close  func() error
}

func boundConnections(l *net.TCPListener, n int) *boundedListener {
	closed := make(chan struct{})
	return &boundedListener{l, make(chan struct{}, n), closed, sync.OnceValue(func() error {
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
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.AcceptTCP()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &boundedConn{c, sync.OnceFunc(func() { <-l.places })}, nil
}

func (c *boundedConn) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}

// connections is how many connections the server may have open. By default they leave most of the files that the process may open to what is
// asked for over them: a blob, an upload, a connection to a registry behind this one.
func (c Config) connections() int {
	if c.Limits.Connections > 0 {
		return c.Limits.Connections
	}
	return max(64, min(openFiles()/4, 16_384))
}
