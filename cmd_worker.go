package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"grindstone/registry"
	"grindstone/webhook"
	"grindstone/webhook/queue"
)

func newWorkerCommand() *cobra.Command {
	var flags struct {
		config, queue, dir, data, listen string
		labels                           []string
	}
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Sanitize models for servers on other machines",
		Long: `Run a worker: it takes runs of the sanitizer from the queue of one or more servers, does them on this machine, and gives the results back. Servers
and workers scale apart; a run whose worker dies is given to another, and a model that five workers did not survive is held.

The worker needs the ONNX Runtime library and the clean datasets, under the names that the servers know them by. It reads the same configuration
as a server: datasets, sanitizer, queue, log, limits, and worker. It has no signing key and needs none: the server checks what it gets before it signs.

With --listen it answers, to whoever asks,

  /healthz     200 while it runs
  /readyz      200 while it can work: the queue, the library and the datasets are there; else 503 with what is missing
  /metrics     jobs and their results, the queue, the process`,
		Example: `  # One server lets workers join, on its own machine
  echo 'queue: {listen: 127.0.0.1:4222}' >> grindstone.yaml && grindstone serve --config grindstone.yaml
  grindstone worker --queue nats://127.0.0.1:4222 --data ./cifar10

  # Servers and workers at a NATS cluster of their own; this worker prefers what the policy gives to CUDA
  grindstone worker --config worker.yaml --labels cuda,any --listen 0.0.0.0:9090`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := DefaultConfig()
			var err error
			if flags.config != "" {
				if c, err = LoadConfig(flags.config); err != nil {
					return &exitError{exitUsage, err}
				}
			}
			if cmd.Flags().Changed("queue") {
				c.Queue.URL, c.Queue.Listen = flags.queue, ""
			}
			if cmd.Flags().Changed("labels") {
				c.Queue.Labels = flags.labels
			}
			if cmd.Flags().Changed("data") {
				c.Datasets["default"] = flags.data
			}
			if cmd.Flags().Changed("listen") {
				c.Worker.Listen = flags.listen
			}
			if err := c.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			switch {
			case c.Queue.URL == "":
				return usageError("no queue is named: --queue nats://HOST:4222, or queue.url in the configuration")
			case len(c.Datasets) == 0:
				return usageError("no clean dataset is named: --data PATH, or datasets in the configuration")
			}
			return work(cmd.Context(), c, flags.dir, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&flags.config, "config", "", "configuration file (grindstone.example.yaml explains every field)")
	cmd.Flags().StringVar(&flags.queue, "queue", "", "URL of the queue, as in nats://127.0.0.1:4222")
	cmd.Flags().StringSliceVar(&flags.labels, "labels", nil, "labels of the jobs to take, the preferred first: any, and cuda for what the policy gives to that provider (default any)")
	cmd.Flags().StringVar(&flags.dir, "dir", "grindstone-worker", "scratch folder, of this worker alone")
	cmd.Flags().StringVar(&flags.data, "data", "", "clean dataset, named \"default\"")
	cmd.Flags().StringVar(&flags.listen, "listen", "", "host:port to answer /healthz, /readyz and /metrics at; port 0 takes a free one (default: nowhere)")
	return cmd
}

// withoutPassword is the queue's URL as it may be printed.
func withoutPassword(list string) string {
	var all []string
	for one := range strings.SplitSeq(list, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil {
			all = append(all, u.Redacted())
		}
	}
	return strings.Join(all, ", ")
}

// work takes jobs from the queue until ctx is cancelled. Jobs that are interrupted go back.
func work(ctx context.Context, c Config, dir string, stdout, stderr io.Writer) (err error) {
	log := newLogger(c.Log, stderr)
	if err := c.checkSandbox(log); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil { // sanitizers work in folders of their own
		return err
	}
	for name, path := range c.Datasets {
		if c.Datasets[name], err = filepath.Abs(path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := registry.Lock(dir)
	if errors.Is(err, registry.ErrLocked) {
		return fmt.Errorf("%s: %w: another worker uses it; name one of its own with --dir", dir, err)
	} else if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.RemoveAll(filepath.Join(dir, "work")); err != nil { // of a worker that was killed
		return err
	}
	var listener net.Listener
	if c.Worker.Listen != "" {
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", c.Worker.Listen); err != nil {
			return fmt.Errorf("worker.listen: %w", err)
		}
		defer listener.Close()
	}
	jobs, err := queue.Open(ctx, c.queue("", log))
	if err != nil {
		return err
	}
	defer jobs.Close()
	w := webhook.NewWorker(jobs, dir, c.Datasets, c.Queue.Labels, c.sanitizer(), log)
	w.Needs = []webhook.Check{runtimeCheck()}
	fmt.Fprintf(stdout, "worker %s takes jobs (%s) from %s\n", w.Name, strings.Join(w.Labels, ", "), withoutPassword(c.Queue.URL))
	log.Info("the worker starts", "version", readBuildInfo().Version, "worker", w.Name, "labels", w.Labels, "queue", withoutPassword(c.Queue.URL))
	if listener == nil {
		err = w.Run(ctx)
	} else {
		fmt.Fprintf(stdout, "health and metrics at http://%s\n", listener.Addr())
		err = w.Serve(ctx, listener, webhook.HTTPConfig{GracePeriod: c.Limits.Grace, Checks: w.Needs, Connections: c.connections()},
			readBuildInfo().attested())
	}
	log.Info("the worker has stopped")
	return err
}
