package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// times are the seconds of one kind of request, by way.
type times map[string][]float64

func (t times) median(way string) float64 { return quantile(t[way], 0.5) }

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// pushOnce pushes a fresh model one way and notes how long it took.
func (b *bench) pushOnce(ctx context.Context, way string, size int64, into times) (tag string, err error) {
	a, err := newArtifact(b.noise, size)
	if err != nil {
		return "", err
	}
	return b.pushThis(ctx, a, way, into)
}

func (b *bench) pushThis(ctx context.Context, a *artifact, way string, into times) (tag string, err error) {
	b.pushed++
	host, repository := b.place(way)
	tag = fmt.Sprint("v", b.pushed)
	begin := time.Now()
	_, err = a.push(ctx, newClient(), host, repository, tag)
	into[way] = append(into[way], time.Since(begin).Seconds())
	return tag, err
}

var ways = []string{direct, bare, through, intercepted}

// latency pushes models of 1 MB, the ways in turn.
func (b *bench) latency(ctx context.Context, w io.Writer) error {
	const pushes = 200
	took := times{}
	for i := range pushes + 10 {
		if i == 10 { // warm
			took = times{}
		}
		for k := range ways {
			way := ways[(i+k)%len(ways)]
			if _, err := b.pushOnce(ctx, way, mib, took); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(w, "| push of 1 MB, %d times | 10th percentile ms | median ms | 95th percentile ms | added at the 10th percentile, ms | added at the median, ms |\n|---|---|---|---|---|---|\n", pushes)
	for _, way := range ways {
		tenth, middle := quantile(took[way], 0.1), took.median(way)
		fmt.Fprintf(w, "| %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", way, 1e3*tenth, 1e3*middle, 1e3*quantile(took[way], 0.95),
			1e3*(tenth-quantile(took[direct], 0.1)), 1e3*(middle-took.median(direct)))
	}
	return nil
}

// throughput pushes and pulls models of 100 MB and 4 GB in turn.
func (b *bench) throughput(ctx context.Context, w io.Writer) error {
	fmt.Fprintln(w, "| | rounds | direct MB/s | bare proxy MB/s | ratio | through MB/s | ratio | to the bare proxy | intercepted MB/s | ratio |\n|---|---|---|---|---|---|---|---|---|---|")
	for _, s := range []struct {
		name   string
		size   int64
		rounds int
	}{{"1 MB", mib, 40 * b.rounds}, {"100 MB", 100 * mib, 2 * b.rounds}, {"4 GB", large, (b.rounds + 1) / 2}} {
		pushes, pulls := times{}, times{}
		for i := range s.rounds {
			for k := range ways {
				way := ways[(i+k)%len(ways)]
				tag, err := b.pushOnce(ctx, way, s.size, pushes)
				if err != nil {
					return fmt.Errorf("push of %s, %s: %w", s.name, way, err)
				}
				if way != direct {
					continue
				}
				if err := b.pullAll(ctx, tag, i, pulls); err != nil {
					return err
				}
			}
			if s.size >= 100*mib {
				if err := b.forget(); err != nil {
					return err
				}
			}
		}
		rate := func(t times, way string) float64 { return float64(s.size) / 1e6 / t.median(way) }
		ratio := func(t times, way, to string) float64 { return rate(t, way) / rate(t, to) }
		row := func(name string, t times) {
			fmt.Fprintf(w, "| %s of %s | %d | %.0f | %.0f | %.3f | %.0f | %.3f | %.3f |", name, s.name, s.rounds, rate(t, direct), rate(t, bare), ratio(t, bare, direct),
				rate(t, through), ratio(t, through, direct), ratio(t, through, bare))
		}
		row("push", pushes)
		fmt.Fprintf(w, " %.0f | %.3f |\n", rate(pushes, intercepted), ratio(pushes, intercepted, direct))
		row("pull", pulls)
		fmt.Fprintln(w, " | |")
	}
	return nil
}

// pullAll pulls what was pushed directly: directly, through the bare proxy and through the gateway.
func (b *bench) pullAll(ctx context.Context, tag string, round int, into times) error {
	_, repository := b.place(direct)
	hosts := map[string]string{direct: b.behind.host, bare: b.proxy.host, through: b.gateway.host}
	for k := range len(hosts) {
		way := ways[(round+k)%len(hosts)]
		begin := time.Now()
		if err := pull(ctx, newClient(), hosts[way], repository, tag); err != nil {
			return err
		}
		into[way] = append(into[way], time.Since(begin).Seconds())
	}
	return nil
}

// memory pushes a model of 4 GB while 31 other clients pull one, and sees how much the gateway grows. Pushes are intercepted and not.
func (b *bench) memory(ctx context.Context, w io.Writer) error {
	const clients = 32
	ignored := times{}
	tag, err := b.pushOnce(ctx, direct, large, ignored)
	if err != nil {
		return err
	}
	_, repository := b.place(direct)
	fmt.Fprintf(w, "| push of 4 GB, and %d clients that pull 4 GB | resident before, MiB | at the peak, MiB | growth, MiB |\n|---|---|---|---|\n", clients-1)
	for _, way := range []string{through, intercepted} {
		a, err := newArtifact(b.noise, large) // hashing it would take its time from the clients
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
					if err := pull(pulling, newClient(), b.gateway.host, repository, tag); err != nil && pulling.Err() == nil {
						failed.Store(err)
						return
					}
				}
			})
		}
		_, err = b.pushThis(ctx, a, way, ignored)
		stop()
		group.Wait()
		if pulled, ok := failed.Load().(error); ok && err == nil {
			err = pulled
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
	for _, way := range ways {
		var mu sync.Mutex
		var took []float64
		var failed []error
		var group sync.WaitGroup
		host, repository := b.place(way)
		artifacts := make([]*artifact, pushers*each)
		for i := range artifacts {
			var err error
			if artifacts[i], err = newArtifact(b.noise, mib); err != nil {
				return err
			}
		}
		for p := range pushers {
			group.Go(func() {
				client := newClient()
				for i := range each {
					begin := time.Now()
					_, err := artifacts[p*each+i].push(ctx, client, host, fmt.Sprint(repository, "-", p), fmt.Sprint("v", i))
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
	return nil
}
