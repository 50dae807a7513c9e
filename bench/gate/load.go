package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// memory pushes the largest model while 31 other clients pull one, and sees how much the gateway grows. Pushes are intercepted and not.
func (b *bench) memory(ctx context.Context, w io.Writer) error {
	const clients = 32
	ignored := times{}
	pulled, err := b.pushOnce(ctx, through, b.largest, ignored)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "| push of %d MiB, and %d clients that pull as much | resident before, MiB | at the peak, MiB | growth, MiB |\n|---|---|---|---|\n", b.largest/mib, clients-1)
	for _, way := range []string{through, intercepted} {
		a, err := newArtifact(b.noise, b.largest) // hashing it would take its time from the clients
		if err != nil {
			return err
		}
		if err := b.gateway.resetPeak(); err != nil {
			return err
		}
		before, _, err := b.gateway.memory()
		if err != nil {
			return err
		}
		pulling, stop := context.WithCancel(ctx)
		var group sync.WaitGroup
		var failed atomic.Value
		for range clients - 1 {
			group.Go(func() {
				for pulling.Err() == nil {
					if err := pull(pulling, b.newClient(), pulled); err != nil && pulling.Err() == nil {
						failed.Store(err)
						return
					}
				}
			})
		}
		err = a.push(ctx, b.newClient(), b.target(way))
		stop()
		group.Wait()
		if cause, ok := failed.Load().(error); ok && err == nil {
			err = cause
		}
		if err != nil {
			return err
		}
		_, peak, err := b.gateway.memory()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "| %s | %.1f | %.1f | %.1f |\n", way, float64(before)/mib, float64(peak)/mib, float64(peak-before)/mib)
	}
	return b.forget()
}

// crowd has 200 clients push at the same time.
func (b *bench) crowd(ctx context.Context, w io.Writer) error {
	const pushers, each = 200, 3
	fmt.Fprintf(w, "| %d clients push %d models of 1 MB each at once | pushes | errors | median ms | 99th percentile ms |\n|---|---|---|---|---|\n", pushers, each)
	for _, way := range b.ways {
		var mu sync.Mutex
		var took []float64
		var failed []error
		var group sync.WaitGroup
		at := b.target(way)
		artifacts := make([]*artifact, pushers*each)
		for i := range artifacts {
			var err error
			if artifacts[i], err = newArtifact(b.noise, mib); err != nil {
				return err
			}
		}
		for p := range pushers {
			group.Go(func() {
				client := b.newClient()
				for i := range each {
					begin := time.Now()
					err := artifacts[p*each+i].push(ctx, client, place{at.host, fmt.Sprint(at.repository, "-", p), fmt.Sprint("v", i)})
					mu.Lock()
					took = append(took, time.Since(begin).Seconds())
					if err != nil {
						failed = append(failed, err)
					}
					mu.Unlock()
				}
			})
		}
		group.Wait()
		fmt.Fprintf(w, "| %s | %d | %d | %.0f | %.0f |\n", way, len(took), len(failed), 1e3*quantile(took, 0.5), 1e3*quantile(took, 0.99))
		if len(failed) > 0 {
			return fmt.Errorf("%s: %w", way, failed[0])
		}
	}
	return b.forget()
}
