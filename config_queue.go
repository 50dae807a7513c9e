package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"grindstone/internal/loopback"
	"grindstone/sanitize"
	"grindstone/webhook"
	"grindstone/webhook/queue"
)

// QueueConfig says how runs of the sanitizer come to workers.
type QueueConfig struct {
	URL         string        // of a NATS cluster, comma-separated; "" runs a server in this process
	Credentials string        // path of a NATS credentials file
	TokenFile   string        // its content is the secret of servers and workers
	CA          string        // path of the certificates to trust
	Replicas    int           // of the streams in a cluster
	Listen      string        // where workers of other processes join the server in this process; "" keeps it private
	Labels      []string      // of the jobs that the workers of this process take
	Heartbeat   time.Duration // a job whose worker is silent for as long is given to another
}

func (c *Config) queueFields(d *decoder) reader {
	q := &c.Queue
	return d.section(fields{
		"url": d.text(&q.URL), "credentials": d.path(&q.Credentials), "token_file": d.path(&q.TokenFile), "ca": d.path(&q.CA),
		"replicas": d.number(&q.Replicas), "listen": d.text(&q.Listen), "labels": d.texts(&q.Labels), "heartbeat": d.duration(&q.Heartbeat),
	})
}

// checkQueue finds what is wrong with the queue's values.
func (c Config) checkQueue(bad func(field, format string, args ...any)) {
	q := c.Queue
	if q.URL != "" && q.Listen != "" {
		bad("queue.listen", "is for the server in this process, which is not run when queue.url names another")
	}
	for one := range strings.SplitSeq(q.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); q.URL != "" && (err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls") {
			bad("queue.url", "%q is no URL of NATS, as in nats://127.0.0.1:4222", one)
		}
	}
	if q.TokenFile != "" {
		if _, err := readSecret(q.TokenFile); err != nil {
			bad("queue.token_file", "%v", err)
		}
	}
	if q.Listen != "" {
		host, _, err := net.SplitHostPort(q.Listen)
		if err != nil {
			bad("queue.listen", "%q is not host:port, as in 127.0.0.1:4222", q.Listen)
		} else if !loopback.Host(host) && q.TokenFile == "" {
			bad("queue.listen", "workers of other machines need a secret: set queue.token_file")
		}
	}
	if q.Replicas < 1 || q.Replicas > 5 {
		bad("queue.replicas", "%d is not 1 to 5", q.Replicas)
	}
	for i, l := range q.Labels {
		if !slices.Contains(webhook.Labels, l) {
			bad(fmt.Sprintf("queue.labels[%d]", i), "there are no jobs with the label %q; the labels are %s", l, strings.Join(webhook.Labels, ", "))
		}
	}
	if q.Heartbeat < time.Second {
		bad("queue.heartbeat", "%v is too short; the least is 1s", q.Heartbeat)
	}
	if c.Sanitizer.Workers == 0 && q.URL == "" && q.Listen == "" {
		bad("sanitizer.workers", "0 leaves the work to others: set queue.url or queue.listen for them")
	}
}

// queue is the configuration of the queue, whose server in this process keeps its files in dir.
func (c Config) queue(dir string, log *slog.Logger) queue.Config {
	q := queue.Config{
		URL: c.Queue.URL, Credentials: c.Queue.Credentials, CA: c.Queue.CA, Replicas: c.Queue.Replicas, Dir: dir, Listen: c.Queue.Listen,
		Heartbeat: c.Queue.Heartbeat, Log: log,
	}
	if c.Queue.TokenFile != "" {
		q.Token, _ = readSecret(c.Queue.TokenFile) // checked with the configuration
	}
	return q
}

// sanitizer is how sanitizer processes are run.
func (c Config) sanitizer() webhook.SanitizerConfig {
	s := c.Sanitizer
	return webhook.SanitizerConfig{Workers: s.Workers, Timeout: s.Timeout, Memory: s.Memory, Provider: s.Provider, Sandbox: s.Sandbox, Threads: s.Threads,
		Model: sanitize.Limits{Bytes: s.Model, Nodes: s.Nodes, Tensors: s.Tensors}, Each: s.PerIdentity}
}
