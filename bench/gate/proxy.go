package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
)

// serveProxy passes requests on to a registry and does nothing else: the least that a process between client and registry costs.
func serveProxy(listen, host string) error {
	p := &httputil.ReverseProxy{
		Transport:  &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10},
		BufferPool: &buffers{sync.Pool{New: func() any { return make([]byte, 256<<10) }}},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: host})
			r.Out.Host = r.In.Host // the registry writes it into Locations
		},
	}
	return http.ListenAndServe(listen, p) //nolint:gosec // on loopback, for a benchmark
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().([]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(p) } //nolint:staticcheck // the slice's head is little beside what it holds

// startProxy runs this program as a bare proxy.
func startProxy(registry string) (*process, error) {
	host, err := freePort()
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(host, program, "-proxy", registry, "-listen", host)
}
