package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"grindstone/registry"
	"grindstone/webhook"
	"grindstone/webhook/pushevent"
)

// EventConfig is a registry that tells of pushes.
type EventConfig struct {
	Registry     string        // URL: where packages are pulled from
	SecretFile   string        // its content is what requests show or sign with
	Repositories []string      // patterns of those that are looked at
	Prefix       string        // of their names here
	Window       time.Duration // an event that is older is refused
	Timeout      time.Duration // of one attempt to bring in what an event tells of
	Release      string        // URL with a path: where what is released is pushed to; "" is nowhere
	MLflow       MLflowConfig  // mlflow only
	Hub          HubConfig     // huggingface only
}

// MLflowConfig is what the model registry of MLflow needs besides.
type MLflowConfig struct {
	Username     string // of HTTP Basic
	PasswordFile string
	TokenFile    string // or a bearer token
	Alias        string // of the newest released version
	Experiment   string // that keeps the files of released versions
}

func (c *Config) eventFields(d *decoder) reader {
	return d.named(func(kind string) fields {
		e := &EventConfig{Repositories: []string{"**"}, Prefix: "events/" + kind + "/", Window: 24 * time.Hour, Timeout: time.Hour}
		c.Events[kind] = e
		known := fields{
			"registry": d.text(&e.Registry), "secret_file": d.path(&e.SecretFile), "repositories": d.texts(&e.Repositories), "prefix": d.text(&e.Prefix),
			"window": d.duration(&e.Window), "timeout": d.duration(&e.Timeout), "release": d.text(&e.Release),
		}
		if kind == mlflowKind {
			e.MLflow = MLflowConfig{Alias: "sanitized", Experiment: "grindstone"}
			known["username"], known["password_file"], known["token_file"] = d.text(&e.MLflow.Username), d.path(&e.MLflow.PasswordFile), d.path(&e.MLflow.TokenFile)
			known["alias"], known["experiment"] = d.text(&e.MLflow.Alias), d.text(&e.MLflow.Experiment)
			delete(known, "release")
		}
		if kind == hubKind {
			e.Registry, e.Hub = "https://huggingface.co", defaultHub()
			maps.Copy(known, e.Hub.fields(d))
		}
		return known
	})
}

var repositoryPrefix = regexp.MustCompile(`^([a-z0-9]+([._-]+[a-z0-9]+)*/)+$`)

// checkEvents finds what is wrong with the sources of push events.
func (c Config) checkEvents(bad func(field, format string, args ...any)) {
	if len(c.Events) > 0 && c.passThrough() {
		bad("events", "are not possible where the upstream checks all logins: the server has none of its own there")
	}
	for kind, e := range c.Events {
		at := "events." + kind
		if pushevent.Parsers[kind] == nil {
			bad(at, "is no known source; known are %s", strings.Join(slices.Sorted(maps.Keys(pushevent.Parsers)), ", "))
		}
		if kind == mlflowKind {
			e.MLflow.check(at, e.Registry, bad)
		} else if kind == hubKind {
			e.Hub.check(at, e.Registry, bad)
		} else if _, path, err := registryURL(e.Registry); err != nil {
			bad(at+".registry", "%v", err)
		} else if path != "" {
			bad(at+".registry", "%q has a path: give the registry alone; which of its repositories are looked at is for repositories to say", e.Registry)
		}
		to, prefix, err := registryURL(e.Release)
		if e.Release != "" && err != nil {
			bad(at+".release", "%v", err)
		} else if e.Release != "" && prefix == "" && c.pulledFrom(to) {
			bad(at+".release", "what is released would take the place of what was pushed: give it a prefix, as in %s/released", e.Release)
		}
		if e.SecretFile == "" {
			bad(at+".secret_file", "must name the file with the secret that the source shows")
		} else if _, err := readSecret(e.SecretFile); err != nil {
			bad(at+".secret_file", "%v", err)
		}
		for i, pattern := range e.Repositories {
			if _, err := repositoryPattern(pattern); err != nil {
				bad(fmt.Sprintf("%s.repositories[%d]", at, i), "%v", err)
			}
		}
		switch {
		case !repositoryPrefix.MatchString(e.Prefix):
			bad(at+".prefix", "%q is no beginning of repository names that ends with a slash, as in events/%s/", e.Prefix, kind)
		case c.sharesPrefix(kind):
			bad(at+".prefix", "%s begins another source's prefix, or is begun by it: what one source tells of would be taken for the other's", e.Prefix)
		case !c.Intercepts()(e.Prefix + "x"):
			bad(at+".prefix", "intercept does not match %s*: nothing there would be sanitized", e.Prefix)
		}
		if e.Window < time.Minute {
			bad(at+".window", "%v is too short; the least is 1m", e.Window)
		}
		if e.Timeout < time.Second {
			bad(at+".timeout", "%v is too short; the least is 1s", e.Timeout)
		}
	}
}

// pulledFrom reports whether a registry is the source of events.
func (c Config) pulledFrom(r webhook.Remote) bool {
	for kind, e := range c.Events {
		if from, _, err := registryURL(e.Registry); err == nil && kind != mlflowKind && kind != hubKind && from.Same(r) {
			return true
		}
	}
	return false
}

// sharesPrefix reports whether repositories of a source could be those of another.
func (c Config) sharesPrefix(kind string) bool {
	for other, e := range c.Events {
		if p := c.Events[kind].Prefix; other != kind && (strings.HasPrefix(p, e.Prefix) || strings.HasPrefix(e.Prefix, p)) {
			return true
		}
	}
	return false
}

// registryURL takes the URL of a registry apart; its path is a prefix of repository names, with a slash at the end if there is one.
func registryURL(text string) (webhook.Remote, string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" {
		return webhook.Remote{}, "", fmt.Errorf("%q is no URL of a registry, as in https://registry.example.com", text)
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
		if !repositoryPrefix.MatchString(prefix) {
			return webhook.Remote{}, "", fmt.Errorf("%q is no beginning of repository names", prefix)
		}
	}
	return webhook.Remote{Host: u.Host, PlainHTTP: u.Scheme == "http"}, prefix, nil
}

// eventSources reads the secrets of the sources of push events.
func (c Config) eventSources() ([]webhook.EventSource, error) {
	var sources []webhook.EventSource
	for _, kind := range slices.Sorted(maps.Keys(c.Events)) {
		e := c.Events[kind]
		s := webhook.EventSource{Kind: kind, Window: e.Window, Timeout: e.Timeout, Matches: repositoryMatcher(e.Repositories), Prefix: e.Prefix}
		var err error
		if kind == mlflowKind {
			if s.Models, err = e.modelRegistry(c.Limits.Blob); err != nil {
				return nil, err
			}
		} else if kind == hubKind {
			if s.Hub, err = e.modelHub(c.Limits.Blob); err != nil {
				return nil, err
			}
		} else if s.Registry, _, err = registryURL(e.Registry); err != nil {
			return nil, err
		}
		if e.Release != "" {
			if s.Release, s.To, err = registryURL(e.Release); err != nil {
				return nil, err
			}
		}
		if s.Secret, err = readSecret(e.SecretFile); err != nil {
			return nil, fmt.Errorf("events.%s.secret_file: %w", kind, err)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// orIngest lets the server's own requests through, which it makes on behalf of push events.
func orIngest(authorize func(context.Context, string, registry.Action) bool) func(context.Context, string, registry.Action) bool {
	if authorize == nil {
		return nil
	}
	return func(ctx context.Context, repository string, a registry.Action) bool {
		return webhook.IsIngest(ctx) && a != registry.ActionOperate || authorize(ctx, repository, a)
	}
}
