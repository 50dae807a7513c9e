package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"grindstone/attest"
	"grindstone/webhook/queue"
)

// Serve is Run for a worker that is watched: it answers health and metrics on l, to whoever asks, until the last job has been given back.
func (w *Worker) Serve(ctx context.Context, l net.Listener, c HTTPConfig, version attest.Version) error {
	m := newProcessMetrics(version, func() *queue.Queue { return w.Queue })
	m.registry.MustRegister(w.metrics.collectors()...)
	c.RequestTimeout = 10 * time.Second // no request has a body
	f := newFrontend(c, m, w.Log)
	f.checks = append(w.ownChecks(), f.checks...)
	f.echo.Use(identify, logRequests(w.Log, m), recoverPanics)
	f.watchRoutes()

	working, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(ctx, func() { f.stopping.Store(true) })
	answering, end := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() {
		defer stop()
		served <- f.serve(answering, l)
	}()
	err := w.Run(working)
	end()
	return errors.Join(err, <-served)
}

// ownChecks are the worker's conditions, before those it was given.
func (w *Worker) ownChecks() []Check {
	return []Check{
		{"queue", func(ctx context.Context) error { return checkQueue(ctx, w.Queue, w.Log) }},
		{"scratch", func(context.Context) error {
			if err := writable(w.Dir); err != nil {
				w.Log.Error("the scratch folder is not writable", "error", err)
				return errors.New("the scratch folder is not writable")
			}
			return nil
		}},
		{"datasets", func(context.Context) error {
			for name, path := range w.Datasets {
				if err := readable(path); err != nil {
					w.Log.Error("a clean dataset cannot be read", "dataset", name, "error", err)
					return fmt.Errorf("the clean dataset %q cannot be read", name)
				}
			}
			return nil
		}},
	}
}

// readable reports why a file, or a folder with something in it, cannot be read.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return err
	}
	_, err = f.Readdirnames(1)
	return err
}
