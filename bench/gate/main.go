// Gate measures what the gateway costs: pushes and pulls of models through it, against a registry directly, in turn in one run. All are processes,
// the client is oras-go, which pushes and verifies as the oras command does. Every push has content that no registry has seen. -behind names the
// registry and where it stands:
//
//	distribution         CNCF distribution, behind the gateway
//	distribution-socket  the same, and the gateway reaches it by a Unix socket: a second process on the same files, since it listens at one address
//	olareg               olareg, behind the gateway
//	embedded             olareg as a process of its own; the gateway has nothing behind it and keeps everything in its embedded olareg, as it does by default
//
// What any hop costs on the machine is measured beside the first two: by a process that is Go's reverse proxy and nothing else.
//
//	go run ./bench/gate -grindstone bin/grindstone -registry .cache/tools/registry -work /var/tmp/gate
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const mib = 1 << 20

func main() {
	var b bench
	var only, listen, proxied string
	var largest int64
	var gbits float64
	flag.StringVar(&b.program, "grindstone", "bin/grindstone", "the program")
	flag.StringVar(&b.behind, "behind", distribution, "distribution, distribution-socket, olareg or embedded")
	flag.StringVar(&b.registry, "registry", ".cache/tools/registry", "the registry's program: CNCF distribution's, or olareg's")
	flag.StringVar(&b.work, "work", "", "folder for what all keep; 20 GB, removed at the end")
	flag.StringVar(&only, "only", "latency,push,pull,memory,crowd", "which parts")
	flag.IntVar(&b.rounds, "rounds", 5, "of pushes and pulls of 4 GB are half as many, of 100 MB twice, of 1 MB 40 times")
	flag.Int64Var(&largest, "largest", 4096, "MiB of the largest model; larger ones are left out")
	flag.Float64Var(&gbits, "network", 0, "Gbit/s of the network between a client and all servers; 0 is as many as the loopback has")
	flag.StringVar(&proxied, "proxy", "", "be a bare proxy of this address, which the measurement starts by itself")
	flag.StringVar(&listen, "listen", "", "with -proxy: where")
	flag.Parse()
	if proxied != "" {
		fmt.Fprintln(os.Stderr, "gate:", serveProxy(listen, proxied))
		os.Exit(1)
	}
	b.parts, b.largest = strings.Split(only, ","), largest*mib
	b.network = gbits * 1e9 / 8
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
}

// bench is a running registry and a gateway, and a bare proxy where there is one.
type bench struct {
	program, registry, behind string
	work                      string
	parts                     []string
	rounds                    int
	largest                   int64   // bytes
	network                   float64 // bytes a second; 0 is no limit

	dir      string   // in work
	noise    *os.File // random bytes, as many as the largest model has
	ways     []string
	alone    *process // the registry
	local    *process // with a socket: the registry that only the gateway reaches
	proxy    *process // bare; nil without one
	gateway  *process
	lastPush int // for the tags
}

func (b *bench) run(ctx context.Context, w io.Writer) (err error) {
	if b.work == "" {
		return errors.New("-work names a folder with 20 GB of room")
	}
	if b.dir, err = filepath.Abs(filepath.Join(b.work, "gate")); err != nil { // a socket's path goes into a URL
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if err := b.makeNoise(filepath.Join(b.dir, "noise")); err != nil {
		return err
	}
	defer b.noise.Close()
	defer b.stop()
	if err := b.start(); err != nil {
		return err
	}
	parts := map[string]func(context.Context, io.Writer) error{"latency": b.latency, "push": b.push, "pull": b.pull, "memory": b.memory, "crowd": b.crowd}
	for _, part := range b.parts {
		if parts[part] == nil {
			return fmt.Errorf("there is no part %q", part)
		}
		if err := parts[part](ctx, w); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		fmt.Fprintln(w)
	}
	return nil
}

func (b *bench) makeNoise(path string) (err error) {
	if b.noise, err = os.Create(path); err != nil {
		return err
	}
	block := make([]byte, 64*mib)
	if _, err := rand.Read(block); err != nil {
		return err
	}
	for written := int64(0); written < b.largest; written += int64(len(block)) {
		if _, err := b.noise.Write(block); err != nil {
			return err
		}
	}
	return b.noise.Sync()
}

// forget removes the blobs that all keep, so that the disk does not fill. Nothing asks for them again.
func (b *bench) forget() error {
	var errs []error
	for _, dir := range []string{"registry", "gateway/data/registry"} {
		errs = append(errs, filepath.WalkDir(filepath.Join(b.dir, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err != nil || info.Size() < mib/2 {
				return err
			}
			return os.Remove(path) //nolint:gosec // in a folder of its own
		}))
	}
	return errors.Join(errs...)
}
