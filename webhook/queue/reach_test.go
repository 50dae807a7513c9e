package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// nodes are the options of a JetStream cluster's NATS servers.
func nodes(t *testing.T, n int) (all []*server.Options, urls string) {
	t.Helper()
	ports := make([]int, 2*n)
	var routes []*url.URL
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	for i := range n {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprint("127.0.0.1:", ports[n+i])})
	}
	var clients []string
	for i := range n {
		all = append(all, &server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: ports[i], JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[n+i]}, Routes: routes,
		})
		clients = append(clients, fmt.Sprint("nats://127.0.0.1:", ports[i]))
	}
	return all, strings.Join(clients, ",")
}

func runNode(t *testing.T, o *server.Options) (stop func()) {
	t.Helper()
	own := *o // a server writes into its options
	s, err := server.NewServer(&own)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	stop = func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	t.Cleanup(stop)
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("a NATS node does not start")
	}
	return stop
}

// TestWithoutAMajority: a new cluster of three nodes that is opened before the nodes run is waited for, and so is one that was in use, of which no node
// runs, and then one. With the second there is a majority, and a job goes there and back.
func TestWithoutAMajority(t *testing.T) {
	all, urls := nodes(t, 3)
	config := Config{URL: urls, Replicas: 3, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	first := open(t, config)
	var stops []func()
	for _, o := range all {
		stops = append(stops, runNode(t, o))
	}
	if left, err := first.Left(t.Context()); err != nil || len(left) > 0 {
		t.Fatalf("a new cluster: %q, %v", left, err)
	}
	first.Close()
	for _, stop := range stops {
		stop()
	}

	q := open(t, config)
	check := func(when string) {
		t.Helper()
		if err := q.Check(t.Context()); !errors.Is(err, ErrConnect) {
			t.Errorf("%s: %v", when, err)
		}
		if _, err := q.Depth(t.Context()); !errors.Is(err, ErrConnect) {
			t.Errorf("%s, the depth: %v", when, err)
		}
		if err := errors.Join(q.Withdraw(t.Context(), "k"), q.Sweep(t.Context(), "s", nil)); !errors.Is(err, ErrConnect) {
			t.Errorf("%s, withdrawing and sweeping: %v", when, err)
		}
	}
	check("no node")
	runNode(t, all[0])
	time.Sleep(8 * time.Second) // it is tried to make the streams
	check("one node")

	j := job(t, "k-1")
	asked := make(chan error, 1)
	go func() {
		run, err := q.Ask(t.Context(), j, Listener{})
		if err == nil && run.Result == nil {
			err = errors.New("no result")
		}
		asked <- err
	}()
	time.Sleep(time.Second)
	runNode(t, all[1])
	d, _, dir := take(t, q, "w")
	if err := d.Finish(t.Context(), dir, Result{Out: []string{"sub/m.onnx"}}); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if err := q.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestClosedWhileItWaits: who waits for a queue that is closed is told.
func TestClosedWhileItWaits(t *testing.T) {
	q := open(t, Config{URL: "nats://127.0.0.1:1"})
	ended := make(chan error, 1)
	go func() {
		_, err := q.Taker(t.Context(), "w", []string{LabelAny})
		ended <- err
	}()
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	q.Close()
	if err := <-ended; !errors.Is(err, ErrConnect) || time.Since(begin) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}
