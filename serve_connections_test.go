package main

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestConnectionsAreBounded: a connection too many waits until another is closed, and over each the kernel can send files.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := boundConnections(l.(*net.TCPListener), 2)
	server := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(bounded) }()
	connect := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return c
	}
	answered := func(c net.Conn, within time.Duration) bool {
		_ = c.SetReadDeadline(time.Now().Add(within))
		n, _ := c.Read(make([]byte, 10))
		return n > 0
	}
	one, two := connect(), connect()
	if !answered(one, 10*time.Second) || !answered(two, 10*time.Second) {
		t.Fatal("the first are not answered")
	}
	three := connect()
	if answered(three, 200*time.Millisecond) {
		t.Error("a third connection is served")
	}
	one.Close()
	if !answered(three, 10*time.Second) {
		t.Error("nobody is served after a connection is closed")
	}
	begun := time.Now()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-served
	if took := time.Since(begun); took > 30*time.Second { // idle connections end by themselves after a minute
		t.Errorf("a server whose places are all taken ends after %v", took)
	}
	if _, ok := any(&boundedConn{}).(io.ReaderFrom); !ok {
		t.Error("files are copied through the process")
	}
	if len(bounded.places) != 0 {
		t.Errorf("%d places are taken", len(bounded.places))
	}
}

func TestConnectionsByDefault(t *testing.T) {
	c := DefaultConfig()
	if n := c.connections(); n < 64 || n > max(64, openFiles()/4) {
		t.Errorf("%d connections of %d files", n, openFiles())
	}
	if c.Limits.Connections = 7; c.connections() != 7 {
		t.Error("the configuration does not count")
	}
}
