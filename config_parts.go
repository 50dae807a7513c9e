package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"grindstone/attest"
	"grindstone/auth"
	"grindstone/policy"
)

// CheckParts finds what keeps a server from starting although each value is well formed: files that do not hold what they should. A policy that does not
// compile is one, a key that is none another. The error names each problem with file and line.
func (c Config) CheckParts(ctx context.Context) error {
	var found problems
	silent := slog.New(slog.DiscardHandler)
	bad := func(field string, err error) {
		if err != nil {
			found = append(found, problem{c.file, c.lines[field], fmt.Sprintf("%s: %v", field, err)})
		}
	}
	_, err := policy.New(ctx, policy.Options{Dir: c.Policy.Dir, Data: c.Policy.Data, Log: silent})
	if c.Policy.Dir != "" {
		bad("policy.dir", err)
	} else {
		bad("policy.data", err)
	}
	bad("key.path", attest.CheckKey(c.KeyPath(), os.Getenv(keyPasswordVariable)))
	_, err = newAccess(c, silent)
	bad("auth", err)
	if c.TLS.Cert != "" {
		_, err = auth.ServerTLS(c.serverTLS(), silent)
		bad("tls.cert", err)
	}
	return found.err()
}

// serverTLS is the certificates' part of the configuration.
func (c Config) serverTLS() auth.TLS {
	return auth.TLS{CertFile: c.TLS.Cert, KeyFile: c.TLS.Key, ClientCAFile: c.TLS.ClientCA, RequireClient: c.TLS.ClientAuth == "require"}
}
