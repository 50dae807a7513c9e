package main

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"grindstone/webhook"
)

// NotifyConfig is one target of notifications.
type NotifyConfig struct {
	URL          string   // receives a POST for each event
	SecretFile   string   // its content signs them; "" leaves them unsigned
	States       []string // final states to tell of; empty is all
	Repositories []string // patterns as in Intercept
}

func (c *Config) notifyFields(d *decoder) reader {
	return d.named(func(name string) fields {
		n := &NotifyConfig{Repositories: []string{"**"}}
		c.Notify[name] = n
		return fields{
			"url": d.text(&n.URL), "secret_file": d.path(&n.SecretFile), "states": d.texts(&n.States), "repositories": d.texts(&n.Repositories),
		}
	})
}

// checkNotify finds what is wrong with the targets of notifications.
func (c Config) checkNotify(bad func(field, format string, args ...any)) {
	for name, n := range c.Notify {
		at := "notify." + name
		if !datasetName.MatchString(name) {
			bad(at, "the name must be letters, digits, '.', '_' and '-'")
		}
		if u, err := url.Parse(n.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			bad(at+".url", "%q is no http or https URL", n.URL)
		}
		if n.SecretFile != "" {
			if _, err := readSecret(n.SecretFile); err != nil {
				bad(at+".secret_file", "%v", err)
			}
		}
		for i, s := range n.States {
			if !webhook.State(s).Final() {
				bad(fmt.Sprintf("%s.states[%d]", at, i), "%q is not one of released, denied, held", s)
			}
		}
		for i, pattern := range n.Repositories {
			if _, err := repositoryPattern(pattern); err != nil {
				bad(fmt.Sprintf("%s.repositories[%d]", at, i), "%v", err)
			}
		}
	}
}

// notifyTargets reads the secrets of those who are told about admissions.
func (c Config) notifyTargets() ([]webhook.Target, error) {
	var targets []webhook.Target
	for _, name := range slices.Sorted(maps.Keys(c.Notify)) {
		n := c.Notify[name]
		t := webhook.Target{Name: name, URL: n.URL, Matches: repositoryMatcher(n.Repositories)}
		for _, s := range n.States {
			t.States = append(t.States, webhook.State(s))
		}
		if n.SecretFile != "" {
			var err error
			if t.Secret, err = readSecret(n.SecretFile); err != nil {
				return nil, fmt.Errorf("notify.%s.secret_file: %w", name, err)
			}
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// minSecret is how many bytes a shared secret must have at least.
const minSecret = 16

// readSecret reads a shared secret from a file; white space around it does not count.
func readSecret(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	secret := strings.TrimSpace(string(data))
	if len(secret) < minSecret {
		return "", fmt.Errorf("%s holds %d bytes; a secret needs %d", path, len(secret), minSecret)
	}
	return secret, nil
}
