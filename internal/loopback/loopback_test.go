package loopback

import "testing"

func TestAddr(t *testing.T) {
	for hostport, want := range map[string]bool{
		"localhost": true, "localhost:5050": true, "127.0.0.1": true, "127.0.0.1:80": true, "127.9.9.9:1": true, "[::1]": true, "[::1]:443": true, "::1": true,
		"[localhost]": false, "": false, ":80": false, "0.0.0.0:80": false, "[::]:80": false, "192.0.2.1:80": false, "localhost.example:80": false, "127.0.0.1.example:80": false, "example": false,
	} {
		if got := Addr(hostport); got != want {
			t.Errorf("%q: %v", hostport, got)
		}
	}
}

func TestHost(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "": false, "[::1]": false, "127.0.0.1:80": false, "example": false} {
		if got := Host(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}
