package main

import (
	"context"
	"net"
	"net/http"

	"golang.org/x/time/rate"
)

// newClient has connections of its own, as a program that is started has, over the network there is.
func (b *bench) newClient() *http.Client {
	t := &http.Transport{MaxIdleConnsPerHost: 4, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}
	if b.network > 0 {
		in, out := link(b.network), link(b.network)
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return paced{c, in, out}, nil
		}
	}
	return &http.Client{Transport: t}
}

const burst = 1 * mib // less than a socket's buffers hold, so that the other side does not wait for it

// link lets so many bytes a second through.
func link(bytes float64) *rate.Limiter { return rate.NewLimiter(rate.Limit(bytes), burst) }

// paced is a connection over a network that is slower than the loopback.
type paced struct {
	net.Conn

	in, out *rate.Limiter
}

func (p paced) Read(to []byte) (int, error) {
	n, err := p.Conn.Read(to[:min(len(to), burst)])
	if n > 0 {
		_ = p.in.WaitN(context.Background(), n) // fails for more than a burst
	}
	return n, err
}

func (p paced) Write(from []byte) (written int, err error) {
	for len(from) > 0 && err == nil {
		var n int
		_ = p.out.WaitN(context.Background(), min(len(from), burst))
		n, err = p.Conn.Write(from[:min(len(from), burst)])
		written, from = written+n, from[n:]
	}
	return written, err
}
