// Gate measures what the gateway costs: pushes and pulls of models through it, against the registry behind it directly, in turn in one run. The
// registry is CNCF distribution, both are processes, the client is oras-go, which pushes and verifies as the oras command does. Every push has
// content that no registry has seen. What any hop costs on the machine is measured beside it: by a process that is Go's reverse proxy and nothing else.
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
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

const (
	mib   = 1 << 20
	large = 4 << 30
)

// The ways that are compared. What is intercepted goes to the gateway's quarantine, and is read from the registry once it is released.
const (
	direct      = "direct"
	bare        = "bare proxy"
	through     = "through"
	intercepted = "intercepted"
)

func main() {
	var b bench
	var program, registry, only, listen, proxied string
	flag.StringVar(&program, "grindstone", "bin/grindstone", "the program")
	flag.StringVar(&registry, "registry", ".cache/tools/registry", "CNCF distribution's program")
	flag.StringVar(&b.work, "work", "", "folder for what both keep; 20 GB, removed at the end")
	flag.StringVar(&only, "only", "latency,throughput,memory,crowd", "which parts")
	flag.IntVar(&b.rounds, "rounds", 5, "of the throughput of 100 MB, and half as many of 4 GB")
	flag.StringVar(&proxied, "proxy", "", "be a bare proxy of this address, which the measurement starts by itself")
	flag.StringVar(&listen, "listen", "", "with -proxy: where")
	flag.Parse()
	if proxied != "" {
		fmt.Fprintln(os.Stderr, "gate:", serveProxy(listen, proxied))
		os.Exit(1)
	}
	b.parts = strings.Split(only, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx, program, registry, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
}

// bench is a running registry with a gateway and a bare proxy before it.
type bench struct {
	work    string
	rounds  int
	parts   []string
	noise   *os.File // random bytes, as many as the largest model has
	behind  *process
	proxy   *process // bare
	gateway *process
	pushed  int // models, for their tags
}

func (b *bench) run(ctx context.Context, program, registry string, w io.Writer) (err error) {
	if b.work == "" {
		return errors.New("-work names a folder with 20 GB of room")
	}
	dir := filepath.Join(b.work, "gate")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := b.makeNoise(filepath.Join(dir, "noise")); err != nil {
		return err
	}
	defer b.noise.Close()
	if b.behind, err = startDistribution(registry, filepath.Join(dir, "behind")); err != nil {
		return err
	}
	defer b.behind.stop()
	if b.proxy, err = startProxy(b.behind.host); err != nil {
		return err
	}
	defer b.proxy.stop()
	if b.gateway, err = startGateway(program, filepath.Join(dir, "gateway"), b.behind.host); err != nil {
		return err
	}
	defer b.gateway.stop()
	parts := map[string]func(context.Context, io.Writer) error{"latency": b.latency, "throughput": b.throughput, "memory": b.memory, "crowd": b.crowd}
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
	for range large / len(block) {
		if _, err := b.noise.Write(block); err != nil {
			return err
		}
	}
	return b.noise.Sync()
}

// place is where a way's model goes: whom the client asks, and the repository.
func (b *bench) place(way string) (host, repository string) {
	switch way {
	case direct:
		return b.behind.host, "plain/direct"
	case bare:
		return b.proxy.host, "plain/bare"
	case through:
		return b.gateway.host, "plain/through"
	}
	return b.gateway.host, "models/intercepted"
}

// forget removes the blobs that both keep, so that the disk does not fill. Nothing asks for them again.
func (b *bench) forget() error {
	return errors.Join(
		os.RemoveAll(filepath.Join(b.behind.dir, "data", "docker", "registry", "v2", "blobs")),
		removeBlobs(filepath.Join(b.gateway.dir, "data", "registry", "quarantine", "models", "intercepted", "blobs", "sha256")),
	)
}

// removeBlobs removes large files of a folder that may not be there.
func removeBlobs(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if info, ierr := e.Info(); ierr == nil && info.Size() > mib/2 {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
