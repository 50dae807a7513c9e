package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"grindstone/auth"
	"grindstone/registry"
)

// TestPushersSeeMetrics: metrics and the list of admissions are for who may push somewhere, as operate.md says. To read what is released is not enough.
func TestPushersSeeMetrics(t *testing.T) {
	for name, c := range map[string]struct {
		settings auth.Config
		remote   string
		want     bool
	}{
		"loopback without logins":            {auth.Config{Loopback: true}, "127.0.0.1:9", true},
		"the network without logins":         {auth.Config{Loopback: true}, "192.0.2.1:9", false},
		"the network, anonymous may pull":    {auth.Config{Loopback: true, Anonymous: auth.Pull}, "192.0.2.1:9", false},
		"the network, anonymous may push":    {auth.Config{Loopback: true, Anonymous: auth.Push}, "192.0.2.1:9", true},
		"a rule that lets the nameless pull": {auth.Config{Rules: []auth.Rule{{Who: []string{"anonymous"}, Role: auth.Pull}}}, "192.0.2.1:9", false},
		"a rule that lets them push":         {auth.Config{Rules: []auth.Rule{{Who: []string{"anonymous"}, Role: auth.Push}}}, "192.0.2.1:9", true},
	} {
		a, err := auth.New(c.settings)
		if err != nil {
			t.Fatal(err)
		}
		got := false
		ask := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = (&access{Authenticator: a}).Pusher(r.Context())
		})
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/metrics", nil)
		r.RemoteAddr = c.remote
		a.Middleware(registry.WithIdentity)(ask).ServeHTTP(httptest.NewRecorder(), r)
		if got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
