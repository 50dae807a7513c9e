package main

import (
	"fmt"
	"path/filepath"
)

// What -behind names.
const (
	distribution = "distribution"
	socket       = "distribution-socket"
	olareg       = "olareg"
	embedded     = "embedded"
)

// The ways that are compared.
const (
	direct      = "direct"
	bare        = "bare proxy"  // only where a registry stands behind the gateway
	through     = "through"     // a repository of the gateway that is not intercepted
	intercepted = "intercepted" // pushes go to the quarantine; what is pulled was released
)

// start starts the registry and what stands before it.
func (b *bench) start() (err error) {
	registry, upstream := startOlareg, ""
	switch b.behind {
	case distribution, socket:
		registry = startDistribution
	case olareg, embedded:
	default:
		return fmt.Errorf("-behind %s: it is %s, %s, %s or %s", b.behind, distribution, socket, olareg, embedded)
	}
	if b.alone, err = registry(b.registry, filepath.Join(b.dir, "registry")); err != nil {
		return err
	}
	b.ways = []string{direct, through, intercepted}
	if b.behind != embedded {
		b.ways, upstream = []string{direct, bare, through, intercepted}, "http://"+b.alone.host
		if b.proxy, err = startProxy(b.alone.host); err != nil {
			return err
		}
	}
	if b.behind == socket { // the clients' and the gateway's registry keep their files in one folder
		at := filepath.Join(b.dir, "registry.sock")
		if b.local, err = startDistributionSocket(b.registry, filepath.Join(b.dir, "registry"), at); err != nil {
			return err
		}
		upstream = "unix://" + at
	}
	b.gateway, err = startGateway(b.program, filepath.Join(b.dir, "gateway"), upstream)
	return err
}

func (b *bench) stop() {
	for _, p := range []*process{b.gateway, b.proxy, b.local, b.alone} {
		if p != nil {
			p.stop()
		}
	}
}

// turn is the order of the ways in a round: each is first as often as the others.
func (b *bench) turn(round int) []string {
	k := round % len(b.ways)
	return append(append([]string{}, b.ways[k:]...), b.ways[:k]...)
}

// target is where the next push of a way goes.
func (b *bench) target(way string) place {
	b.lastPush++
	tag := fmt.Sprint("v", b.lastPush)
	switch way {
	case direct:
		return place{b.alone.host, "plain/direct", tag}
	case bare:
		return place{b.proxy.host, "plain/bare", tag}
	case through:
		return place{b.gateway.host, "plain/through", tag}
	}
	return place{b.gateway.host, "models/intercepted", tag}
}
