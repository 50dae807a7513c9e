// Package loopback tells this machine's own addresses from others.
package loopback

import (
	"net"
	"strings"
)

// Host reports whether a name or an IP address is this machine's for itself.
func Host(host string) bool { return host == "localhost" || address(host) }

func address(text string) bool {
	ip := net.ParseIP(text)
	return ip != nil && ip.IsLoopback()
}

// Addr is Host for host or host:port.
func Addr(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return host == "localhost" || address(strings.Trim(host, "[]"))
}
