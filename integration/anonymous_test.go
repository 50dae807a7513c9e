package integration

import (
	"net"
	"net/http"
	"testing"
)

// outside is an address of this machine that is not of loopback: who connects to it comes from it.
func outside(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but those of loopback")
	return ""
}

// TestAnonymousFromOutside: without logins only this machine is served, by its loopback address, unless the configuration gives the anonymous a role. An
// operator the anonymous never are from outside.
func TestAnonymousFromOutside(t *testing.T) {
	at := outside(t)
	for name, c := range map[string]struct {
		config                   string
		pull, push, see, operate int // statuses from outside
		local                    int // of a push from loopback
	}{
		"nothing configured": {"", 401, 401, 401, 403, 202},
		"pull":               {"auth: {anonymous: pull}\n", 404, 401, 401, 403, 202},
		"push":               {"auth: {anonymous: push}\n", 404, 202, 200, 403, 202},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "--config", writeConfig(t, t.TempDir(), c.config), "--listen", "0.0.0.0:0")
			_, port, err := net.SplitHostPort(s.address)
			if err != nil {
				t.Fatal(err)
			}
			s.address = net.JoinHostPort(at, port)
			for _, r := range []struct {
				method, path string
				want         int
			}{
				{"GET", "/healthz", http.StatusOK},
				{"GET", "/v2/models/a/tags/list", c.pull}, {"GET", "/v2/models/a/manifests/v1", c.pull}, {"POST", "/v2/models/a/blobs/uploads/", c.push},
				{"GET", "/api/v1/admissions", c.see}, {"GET", "/metrics", c.see}, {"POST", "/api/v1/gc", c.operate}, {"GET", "/api/v1/notifications", c.operate},
			} {
				if status, _, text := s.call("", r.method, r.path, nil); status != r.want {
					t.Errorf("%s %s from outside: %d, want %d: %s", r.method, r.path, status, r.want, text)
				}
			}
			s.address = net.JoinHostPort("127.0.0.1", port)
			if status, _, text := s.call("", "POST", "/v2/models/a/blobs/uploads/", nil); status != c.local {
				t.Errorf("a push from this machine: %d %s", status, text)
			}
			if status, _, text := s.call("", "POST", "/api/v1/gc", nil); status != http.StatusOK {
				t.Errorf("an operator on this machine: %d %s", status, text)
			}
		})
	}
}
