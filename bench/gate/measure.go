package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"oras.land/oras-go/v2/errdef"
)

// times are the seconds of one kind of request, by way.
type times map[string][]float64

func (t times) median(way string) float64 { return quantile(t[way], 0.5) }

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// clock notes how long something takes.
func (t times) clock(way string, f func() error) error {
	begin := time.Now()
	err := f()
	t[way] = append(t[way], time.Since(begin).Seconds())
	return err
}

// pushOnce pushes a fresh model one way and notes how long it took.
func (b *bench) pushOnce(ctx context.Context, way string, size int64, into times) (place, error) {
	a, err := newArtifact(b.noise, size)
	if err != nil {
		return place{}, err
	}
	at := b.target(way)
	return at, into.clock(way, func() error { return a.push(ctx, b.newClient(), at) })
}

// latency pushes models of 1 MB, the ways in turn.
func (b *bench) latency(ctx context.Context, w io.Writer) error {
	const pushes = 200
	took := times{}
	for i := range pushes + 10 {
		if i == 10 { // warm
			took = times{}
		}
		for _, way := range b.turn(i) {
			if _, err := b.pushOnce(ctx, way, mib, took); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(w, "| push of 1 MB, %d times | 10th percentile ms | median ms | 95th percentile ms | added at the 10th percentile, ms | added at the median, ms |\n|---|---|---|---|---|---|\n", pushes)
	for _, way := range b.ways {
		tenth, middle := quantile(took[way], 0.1), took.median(way)
		fmt.Fprintf(w, "| %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", way, 1e3*tenth, 1e3*middle, 1e3*quantile(took[way], 0.95),
			1e3*(tenth-quantile(took[direct], 0.1)), 1e3*(middle-took.median(direct)))
	}
	return b.forget()
}

// model is a size that is measured, and how often.
type model struct {
	name   string
	size   int64 // bytes
	rounds int
}

func (b *bench) models() []model {
	all := []model{{"1 MB", mib, 40 * b.rounds}, {"100 MB", 100 * mib, 2 * b.rounds}, {"4 GB", 4 << 30, (b.rounds + 1) / 2}}
	return slices.DeleteFunc(all, func(m model) bool { return m.size > b.largest })
}

// push measures how fast pushes are.
func (b *bench) push(ctx context.Context, w io.Writer) error {
	b.tableHead(w)
	for _, m := range b.models() {
		took, used := times{}, times{}
		for i := range m.rounds {
			for _, way := range b.turn(i) {
				err := b.processors(used, way, func() error {
					_, err := b.pushOnce(ctx, way, m.size, took)
					return err
				})
				if err != nil {
					return fmt.Errorf("%s, %s: %w", m.name, way, err)
				}
				if m.size > mib { // so that nothing of it is left to be written during the next
					if err := b.forget(); err != nil {
						return err
					}
				}
			}
		}
		b.tableRow(w, "push", m, took, used)
	}
	return b.forget()
}

// pull measures how fast pulls are, of one model by all ways that can reach it.
func (b *bench) pull(ctx context.Context, w io.Writer) error {
	b.tableHead(w)
	for _, m := range b.models() {
		from, err := b.stock(ctx, m.size)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		took, used := times{}, times{}
		for i := range m.rounds {
			for _, way := range b.turn(i) {
				err := b.processors(used, way, func() error {
					return took.clock(way, func() error { return pull(ctx, b.newClient(), from[way]) })
				})
				if err != nil {
					return fmt.Errorf("%s, %s: %w", m.name, way, err)
				}
			}
		}
		b.tableRow(w, "pull", m, took, used)
		if err := b.forget(); err != nil {
			return err
		}
	}
	return nil
}

// stock pushes what is to be pulled, and says where each way finds it. To an intercepted repository goes one without a model, which is released as it is:
// at once, or a little later where that takes longer than a push waits for it.
func (b *bench) stock(ctx context.Context, size int64) (map[string]place, error) {
	a, err := newArtifact(b.noise, size)
	if err != nil {
		return nil, err
	}
	at := b.target(direct)
	from := map[string]place{direct: at, through: at, intercepted: b.target(intercepted)}
	if b.proxy != nil { // one copy, behind all
		from[bare] = place{b.proxy.host, at.repository, at.tag}
		from[through] = place{b.gateway.host, at.repository, at.tag}
	} else {
		from[through] = b.target(through)
		if err := a.push(ctx, b.newClient(), from[through]); err != nil {
			return nil, err
		}
	}
	if err := a.push(ctx, b.newClient(), at); err != nil {
		return nil, err
	}
	if err := a.withoutModel().push(ctx, b.newClient(), from[intercepted]); err != nil {
		return nil, err
	}
	return from, b.released(ctx, from[intercepted])
}

// released waits until a tag can be read.
func (b *bench) released(ctx context.Context, at place) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	repo, err := at.open(b.newClient())
	if err != nil {
		return err
	}
	for {
		_, err := repo.Resolve(ctx, at.tag)
		if !errors.Is(err, errdef.ErrNotFound) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s:%s: not released: %w", at.repository, at.tag, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// processors notes how much processor time the registry, the proxy and the gateway take for something, together.
func (b *bench) processors(used times, way string, f func() error) error {
	total := func() (all float64, err error) {
		for _, p := range []*process{b.alone, b.local, b.proxy, b.gateway} {
			if p != nil {
				seconds, perr := p.processor()
				all, err = all+seconds, errors.Join(err, perr)
			}
		}
		return all, err
	}
	before, err := total()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := total()
	used[way] = append(used[way], after-before)
	return err
}

// tableHead begins a table of throughput: each way's, its ratio to direct, and what it costs the processors.
func (b *bench) tableHead(w io.Writer) {
	fmt.Fprint(w, "| | rounds |")
	rule := "|---|---|"
	for _, way := range b.ways {
		fmt.Fprintf(w, " %s MB/s | processor s/GB |", way)
		rule += "---|---|"
		if way != direct {
			fmt.Fprint(w, " ratio |")
			rule += "---|"
		}
	}
	fmt.Fprintf(w, "\n%s\n", rule)
}

func (b *bench) tableRow(w io.Writer, what string, m model, took, used times) {
	fmt.Fprintf(w, "| %s of %s | %d |", what, m.name, m.rounds)
	for _, way := range b.ways {
		fmt.Fprintf(w, " %.0f | %.2f |", float64(m.size)/1e6/took.median(way), mean(used[way])/float64(m.size)*1e9)
		if way != direct {
			fmt.Fprintf(w, " %.3f |", took.median(direct)/took.median(way))
		}
	}
	fmt.Fprintln(w)
}
