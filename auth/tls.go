package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLS names the server's certificate, and who signs its clients'.
type TLS struct {
	CertFile, KeyFile string // PEM
	ClientCAFile      string // PEM; "" asks clients for no certificate
	RequireClient     bool   // refuses clients without one
}

// ServerTLS returns a configuration that reads the files again when they change, at most once a second. A renewal that cannot be
// read yet, because only half of it is written, leaves the certificate before it in use.
func ServerTLS(files TLS, log *slog.Logger) (*tls.Config, error) {
	r := &reloader{files: files, log: log}
	if err := r.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
	}, nil
}

type reloader struct {
	files TLS
	log   *slog.Logger

	mu      sync.Mutex
	config  *tls.Config
	states  [3]fileState
	checked time.Time
}

func (r *reloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.checked) >= time.Second {
		r.checked = now
		if r.stat() != r.states {
			if err := r.load(); err != nil {
				r.log.Error("the renewed TLS certificate cannot be used yet; the one before stays", "error", err)
			} else {
				r.log.Info("the TLS certificate was renewed")
			}
		}
	}
	return r.config
}

func (r *reloader) stat() (states [3]fileState) {
	for i, path := range []string{r.files.CertFile, r.files.KeyFile, r.files.ClientCAFile} {
		if info, err := os.Stat(path); err == nil {
			states[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	return states
}

// load reads the files. The states are taken before, so that a change meanwhile is seen the next time.
func (r *reloader) load() error {
	states := r.stat()
	pair, err := tls.LoadX509KeyPair(r.files.CertFile, r.files.KeyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair}}
	if r.files.ClientCAFile != "" {
		pem, err := os.ReadFile(r.files.ClientCAFile)
		if err != nil {
			return fmt.Errorf("TLS client CA: %w", err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return errors.New("TLS client CA: " + r.files.ClientCAFile + " holds no certificate in PEM")
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven
		if r.files.RequireClient {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	r.config, r.states = c, states
	return nil
}
