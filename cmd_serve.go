package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"grindstone/attest"
	"grindstone/auth"
	"grindstone/policy"
	"grindstone/registry"
	"grindstone/webhook"
	"grindstone/webhook/queue"
)

func newServeCommand() *cobra.Command {
	var flags struct{ config, listen, dir, data string }
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the registry that quarantines, sanitizes, signs and releases",
		Long: `Serve the OCI distribution protocol under /v2/. What is pushed to an intercepted repository goes to quarantine; its tag
answers when the sanitized and signed model is released. The server also answers

  /api/v1/admissions              what happened to every push: ?state= reason= repository= tag= digest= limit= offset=
  /api/v1/admissions/ID           one of them
  /api/v1/admissions/ID/events    its progress, as server-sent events
  /api/v1/key                     the public key that attestations are verified with
  /healthz /readyz /metrics       for whoever watches the server

Without logins (auth in the configuration) only clients on this machine are served. A server that is stopped or killed goes on at its next start with what it was doing.`,
		Example: `  grindstone serve --data ./cifar10
  grindstone serve --config grindstone.yaml
  grindstone serve --listen 127.0.0.1:7000 --dir /var/lib/grindstone --data /data/signs.zip`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := DefaultConfig()
			if flags.config != "" {
				var err error
				if c, err = LoadConfig(flags.config); err != nil {
					return &exitError{exitUsage, err}
				}
			}
			set := func(flag string, field *string, value string) {
				if cmd.Flags().Changed(flag) {
					*field = value
				}
			}
			set("listen", &c.Listen, flags.listen)
			set("dir", &c.Dir, flags.dir)
			if cmd.Flags().Changed("data") {
				c.Datasets["default"] = flags.data
			}
			if err := c.Validate(); err != nil {
				return &exitError{exitUsage, err}
			}
			if err := c.CheckParts(cmd.Context()); err != nil {
				return &exitError{exitUsage, err}
			}
			for {
				err := serve(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
				if !errors.Is(err, queue.ErrStore) {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "grindstone: starts again: %v\n", err)
			}
		},
	}
	def := DefaultConfig()
	cmd.Flags().StringVar(&flags.config, "config", "", "configuration file (grindstone.example.yaml explains every field)")
	cmd.Flags().StringVar(&flags.listen, "listen", def.Listen, "host:port to listen on; port 0 takes a free one")
	cmd.Flags().StringVar(&flags.dir, "dir", def.Dir, "folder to keep everything in")
	cmd.Flags().StringVar(&flags.data, "data", "", "clean dataset, named \"default\"")
	return cmd
}

// serve builds the parts in the order of a model's way and serves until ctx is cancelled.
func serve(ctx context.Context, c Config, stdout, stderr io.Writer) error {
	log := newLogger(c.Log, stderr)
	if err := webhook.DisableCoreDumps(); err != nil {
		log.Warn("core dumps cannot be switched off", "error", err)
	}
	if err := c.checkSandbox(log); err != nil {
		return err
	}
	if err := makeFolders(&c); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	address := listener.Addr().String()
	var secure *tls.Config
	if c.TLS.Cert != "" {
		if secure, err = auth.ServerTLS(c.serverTLS(), log); err != nil {
			return err
		}
	}
	if c.Host == "" {
		c.Host = address
	}

	engine, err := policy.New(ctx, policy.Options{Dir: c.Policy.Dir, Data: c.Policy.Data, Log: log})
	if err != nil {
		return err
	}
	if password := os.Getenv(keyPasswordVariable); password != "" { // a key that is made now is encrypted
		if err := attest.CreateKey(c.KeyPath(), password); err != nil {
			return fmt.Errorf("signing key: %w", err)
		}
	}
	key, err := attest.LoadOrCreateKey(c.KeyPath(), keyPassword)
	if err != nil {
		return err
	}
	if err := writePublicKey(c.KeyPath(), key.PublicPEM()); err != nil {
		return err
	}
	targets, err := c.notifyTargets()
	if err != nil {
		return err
	}
	events, err := c.eventSources()
	if err != nil {
		return err
	}
	guard, err := newAccess(c, log)
	if err != nil {
		return err
	}
	upstream, err := c.upstream()
	if err != nil {
		return err
	}
	pipeline, err := webhook.NewPipeline(webhook.PipelineConfig{
		Dir: c.Dir, Policy: engine, Key: key, Datasets: c.Datasets, Defaults: c.Trainer, Host: c.Host, Log: log,
		Sanitizer: c.sanitizer(), Labels: c.Queue.Labels,
		Version: readBuildInfo().attested(), Targets: targets, Events: events,
		Ingest: webhook.IngestConfig{AtOnce: c.Limits.Events, Keep: c.Limits.Records},
	})
	if err != nil {
		return err
	}
	gateway, err := registry.New(registry.Config{
		Dir: filepath.Join(c.Dir, "registry"), Intercept: c.Intercepts(), Admitter: pipeline, Log: log,
		Upstream: upstream, Authorize: orIngest(guard.authorize()), Challenge: guard.Challenge(),
		Limits: registry.Limits{ManifestBytes: c.Limits.Manifest, BlobBytes: c.Limits.Blob, BodyTime: c.Limits.Request},
	})
	if errors.Is(err, registry.ErrLocked) {
		return fmt.Errorf("%w: stop the other server or name another folder with --dir", err)
	} else if err != nil {
		return err
	}
	jobs, err := queue.Open(ctx, c.queue(filepath.Join(c.Dir, "state", "queue"), log)) // after the folder's lock
	if err != nil {
		return errors.Join(err, gateway.Close())
	}
	defer jobs.Close()
	pipeline.Queue = jobs
	checks, runtime := []webhook.Check{{Name: "registry", Run: gateway.Check}}, runtimeCheck()
	if c.Sanitizer.Workers > 0 {
		checks = append(checks, runtime)
	}
	server := webhook.NewServer(webhook.ServerConfig{
		HTTPConfig: webhook.HTTPConfig{RequestTimeout: c.Limits.Request, GracePeriod: c.Limits.Grace, Checks: checks, Connections: c.connections(), TLS: secure},
		Access:     guard, Operators: guard,
	}, pipeline, gateway, log)

	if at := jobs.Address(); at != "" {
		fmt.Fprintf(stdout, "workers join at %s\n", at)
	}
	greet(stdout, c, address, key, c.missingRuntime(ctx, runtime, log))
	log.Info("the server starts", "version", readBuildInfo().Version, "address", address, "dir", c.Dir, "policy", engine.Digest(), "key", "SHA256:"+key.Hint())
	err = server.Serve(ctx, listener)
	if cerr := gateway.Close(); err == nil {
		err = cerr
	}
	log.Info("the server has stopped")
	return err
}

// makeFolders makes the folders that the server keeps everything in, for this user alone.
func makeFolders(c *Config) error {
	dir, err := filepath.Abs(c.Dir) // sanitizers work in folders of their own
	if err != nil {
		return err
	}
	c.Dir = dir
	for name, path := range c.Datasets {
		if c.Datasets[name], err = filepath.Abs(path); err != nil {
			return err
		}
	}
	for _, sub := range []string{"", "registry", "state", "work", "keys"} {
		path := filepath.Join(dir, sub)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("dir: %w", err)
		}
		if err := os.Chmod(path, 0o700); err != nil { //nolint:gosec // a folder cannot be entered without x
			return fmt.Errorf("dir: %w", err)
		}
	}
	return nil
}

// keyPasswordVariable names the variable of the environment that holds the password of the signing key.
const keyPasswordVariable = "GRINDSTONE_KEY_PASSWORD"

// keyPassword asks for the password of an encrypted key: the environment first, then the terminal.
func keyPassword() ([]byte, error) {
	if password, ok := os.LookupEnv(keyPasswordVariable); ok {
		return []byte(password), nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, errors.New("the key is encrypted: set " + keyPasswordVariable)
	}
	fmt.Fprint(os.Stderr, "Password of the signing key: ")
	defer fmt.Fprintln(os.Stderr)
	return term.ReadPassword(int(os.Stdin.Fd()))
}

// writePublicKey keeps the public half beside the key, for deployers.
func writePublicKey(keyPath string, pem []byte) error {
	path := strings.TrimSuffix(keyPath, ".key") + ".pub"
	if old, err := os.ReadFile(path); err == nil && string(old) == string(pem) {
		return nil
	}
	return os.WriteFile(path, pem, 0o644)
}

// greet tells the operator what runs, what is missing, and what to try next.
func greet(w io.Writer, c Config, address string, key *attest.Key, missing string) {
	scheme, plain := "http", " --plain-http"
	if c.TLS.Cert != "" {
		scheme, plain = "https", ""
	}
	fmt.Fprintf(w, "grindstone listens on %s://%s\n", scheme, address)
	fmt.Fprintf(w, "  intercepts    %s\n", strings.Join(c.Intercept, ", "))
	if len(c.Datasets) == 0 {
		fmt.Fprintln(w, "  clean data    none: pushed models stay in quarantine; restart with --data PATH")
	}
	for name, path := range c.Datasets {
		fmt.Fprintf(w, "  clean data    %s: %s\n", name, path)
	}
	if missing != "" {
		fmt.Fprintf(w, "  sanitizer     none: %s\n", missing)
	}
	if c.Upstream.URL != "" {
		fmt.Fprintf(w, "  upstream      %s\n", c.Upstream.URL)
	}
	fmt.Fprintf(w, "  who may       %s\n", c.whoMay())
	fmt.Fprintf(w, "  keeps         %s\n", c.Dir)
	fmt.Fprintf(w, "  signing key   %s\n", "SHA256:"+key.Hint())
	fmt.Fprintf(w, "Try:\n  oras push%s %s/models/demo:v1 model.onnx\n  curl %s://%s/api/v1/admissions\n", plain, address, scheme, address)
}

func newLogger(c LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the configuration
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
