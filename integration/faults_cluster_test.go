package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"grindstone/internal/testregistry"
	"grindstone/webhook"
)

// cluster is an installation of several processes: a server in front of a registry, workers, and NATS nodes with JetStream. Every one is
// started again when it ends.
type cluster struct {
	*server   // its address and folder, to ask it
	processes map[string]*process
	workers   []string // names of the processes that run sanitizers
	folders   []string // that they have work/ in
	upstream  string   // URL of the registry behind; "": the server's own
	queue     string   // URLs of the NATS nodes; "": in the server's process
	client    *http.Client
}

const heartbeatOfFaults = "2s"

// startCluster runs one server, two workers, a JetStream cluster of three nodes, and CNCF distribution.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.startNATS(3)
	upstream := testregistry.FreePort(t)
	c.upstream = "http://" + upstream
	c.start("upstream", testregistry.DistributionCommand(t, upstream, t.TempDir(), ""))
	queue := "queue: {url: \"" + c.queue + "\", replicas: 3, heartbeat: " + heartbeatOfFaults + "}\n"
	c.startServer("upstream: {url: " + c.upstream + "}\nsanitizer: {workers: 0}\n" + queue)
	program, config := binary(t), tinyConfig(t, queue)
	for _, name := range []string{"worker-1", "worker-2"} {
		dir := t.TempDir()
		c.workers, c.folders = append(c.workers, name), append(c.folders, dir)
		c.start(name, func() *exec.Cmd { return exec.Command(program, "worker", "--config", config, "--dir", dir) })
	}
	c.awaitReady()
	return c
}

// startAlone runs one server that has everything inside: registry, queue and worker.
func startAlone(t *testing.T, more string) *cluster {
	t.Helper()
	c := newCluster(t)
	c.workers = []string{"server"}
	c.startServer(more)
	c.awaitReady()
	return c
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	needRuntime(t)
	dir := t.TempDir()
	return &cluster{
		server:    &server{T: t, address: testregistry.FreePort(t), dir: dir},
		processes: map[string]*process{}, folders: []string{dir}, client: &http.Client{Timeout: 10 * time.Second},
	}
}

func (c *cluster) start(name string, command func() *exec.Cmd) {
	c.processes[name] = supervise(c.T, name, command)
}

// startServer runs the server with more configuration: alice may push, gate is the operator, and everybody may pull.
func (c *cluster) startServer(more string) {
	c.Helper()
	program, config := binary(c.T), c.serverConfig(more)
	c.start("server", func() *exec.Cmd {
		return exec.Command(program, "serve", "--listen", c.address, "--dir", c.dir, "--config", config)
	})
}

func (c *cluster) serverConfig(more string) string {
	c.Helper()
	return tinyConfig(c.T, "auth: {htpasswd: "+strconv.Quote(passwords(c.T, "alice", "gate"))+", anonymous: pull, roles: ["+
		"{who: [alice], repositories: [\"**\"], role: push}, {who: [gate], repositories: [\"**\"], role: operator}]}\n"+more)
}

// startNATS runs nats-server, as many as nodes, as one cluster.
func (c *cluster) startNATS(nodes int) {
	c.Helper()
	program := filepath.Join(c.TempDir(), "nats-server")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		c.Fatalf("%v\n%s", err, out)
	}
	var clients, routes []string
	for range nodes {
		clients, routes = append(clients, testregistry.FreePort(c.T)), append(routes, testregistry.FreePort(c.T))
	}
	for i := range nodes {
		name, dir := fmt.Sprintf("nats-%d", i+1), c.TempDir()
		host, port, _ := strings.Cut(clients[i], ":")
		args := []string{"--name", name, "--addr", host, "--port", port, "--jetstream", "--store_dir", dir, "--cluster_name", "faults",
			"--cluster", "nats://" + routes[i], "--routes", "nats://" + strings.Join(routes, ",nats://")}
		c.start(name, func() *exec.Cmd { return exec.Command(program, args...) })
	}
	c.queue = "nats://" + strings.Join(clients, ",nats://")
}

// awaitReady waits until the server says that it can do its work.
func (c *cluster) awaitReady() {
	c.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		r, err := c.client.Get("http://" + c.address + "/readyz")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			c.Fatalf("the server does not get ready: %v", err)
		}
	}
}

// hit carries out a fault. False: what it names did not run.
func (c *cluster) hit(f fault) bool {
	if f.Target != "sanitizer" {
		return c.processes[f.Target].kill(f.Down)
	}
	for range 20 {
		for _, name := range c.workers {
			for pid, command := range childrenOf(c.T, c.processes[name].pid()) {
				if strings.Contains(command, " sanitize ") {
					p, err := os.FindProcess(pid)
					return err == nil && p.Kill() == nil
				}
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

// ask makes a request to the server's API as the operator.
func (c *cluster) ask(ctx context.Context, method, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	r.SetBasicAuth("gate", "gategate")
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// inWork counts the admissions that are in one of the states.
func (c *cluster) inWork(ctx context.Context, states ...webhook.State) (n int, err error) {
	for _, s := range states {
		var list struct{ Total int }
		if err := c.ask(ctx, http.MethodGet, "/api/v1/admissions?limit=1&state="+string(s), &list); err != nil {
			return 0, err
		}
		n += list.Total
	}
	return n, nil
}

// admissions lists all.
func (c *cluster) admissions() (all []webhook.Admission) {
	c.Helper()
	for {
		var page struct {
			Admissions []webhook.Admission
			Total      int
		}
		if err := c.ask(c.Context(), http.MethodGet, fmt.Sprintf("/api/v1/admissions?limit=200&offset=%d", len(all)), &page); err != nil {
			c.Fatal(err)
		}
		if all = append(all, page.Admissions...); len(page.Admissions) == 0 || len(all) == page.Total {
			return all
		}
	}
}

// settle waits until no admission is in work.
func (c *cluster) settle(limit time.Duration) {
	c.Helper()
	c.awaitReady()
	for deadline := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		n, err := c.inWork(c.Context(), webhook.Quarantined, webhook.Deciding, webhook.Sanitizing, webhook.Evaluating, webhook.Attesting, webhook.Releasing)
		if err == nil && n == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, a := range c.admissions() {
				if !a.State.Final() {
					c.Errorf("%s is %s since %v: %+v", a.ID, a.State, a.UpdatedAt, a.History)
				}
			}
			c.Fatalf("%d admissions are in work after %v without a fault: %v", n, limit, err)
		}
	}
}
