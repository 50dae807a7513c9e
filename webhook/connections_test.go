package webhook

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"grindstone/attest"
	"grindstone/webhook/queue"
)

// TestConnectionsAreBounded: a connection too many waits until another is closed, and over each the kernel can send files. That the table was full is
// counted each time, and logged once a minute.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	table, m := newConnectionTable(2, slog.New(slog.NewTextHandler(&log, nil))), newProcessMetrics(attest.Version{}, func() *queue.Queue { return nil })
	m.connections(table)
	server := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(table.bound(l)) }()
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
	for deadline := time.Now().Add(10 * time.Second); table.filled.Load() < 2 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	answer := httptest.NewRecorder()
	m.handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{"grindstone_connections 2", "grindstone_connections_limit 2", "grindstone_connections_full_total 2"} {
		if !strings.Contains(answer.Body.String(), line+"\n") {
			t.Errorf("the metrics lack %s:\n%s", line, answer.Body)
		}
	}
	begun := time.Now()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-served
	if took := time.Since(begun); took > 30*time.Second { // idle connections end by themselves after a minute
		t.Errorf("a server whose places are all taken ends after %v", took)
	}
	if n := strings.Count(log.String(), "limits.connections=2"); n != 1 {
		t.Errorf("the log tells %d times that the table was full:\n%s", n, &log)
	}
	if _, ok := any(&boundedConn{}).(io.ReaderFrom); !ok {
		t.Error("files are copied through the process")
	}
	if len(table.places) != 0 {
		t.Errorf("%d places are taken", len(table.places))
	}
}
