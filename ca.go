package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
)

// caHelp explains --ca.
const caHelp = "PEM file of authorities to trust besides the system's, for a server with a certificate of a private one"

// trusting is the usual transport of HTTP, which trusts the authorities in a file as well, "" for none.
func trusting(caFile string) (http.RoundTripper, error) {
	if caFile == "" {
		return http.DefaultTransport, nil
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, usageError("--ca: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, usageError("--ca: %s holds no certificate in PEM", caFile)
	}
	usual, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("--ca: the transport is a %T", http.DefaultTransport)
	}
	t := usual.Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	return t, nil
}
