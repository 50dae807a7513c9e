package main

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"grindstone/webhook"
	"grindstone/webhook/mlflow"
)

// mlflowKind is the source of push events that is a model registry: what is released becomes a new version there.
const mlflowKind = "mlflow"

// As MLflow checks aliases of registered models.
var (
	mlflowAlias    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	mlflowReserved = regexp.MustCompile(`(?i)^(latest|v[0-9]+)$`)
)

// check finds what is wrong with the settings of an MLflow server.
func (m MLflowConfig) check(at, server string, bad func(field, format string, args ...any)) {
	if !isServerURL(server) {
		bad(at+".registry", "%q is no URL of an MLflow tracking server, as in https://mlflow.example.com", server)
	}
	if !mlflowAlias.MatchString(m.Alias) || mlflowReserved.MatchString(m.Alias) {
		bad(at+".alias", "%q is no alias: MLflow takes letters, digits, _ and -, and keeps \"latest\", \"v1\" and the like for itself", m.Alias)
	}
	if strings.TrimSpace(m.Experiment) == "" {
		bad(at+".experiment", "must name the experiment that keeps the files of released versions")
	}
	if (m.Username == "") != (m.PasswordFile == "") {
		bad(at+".username", "give username and password_file, or neither")
	}
	if m.Username != "" && m.TokenFile != "" {
		bad(at+".token_file", "give a token or a username, not both")
	}
	for field, path := range map[string]string{".password_file": m.PasswordFile, ".token_file": m.TokenFile} {
		if path == "" {
			continue
		}
		if _, err := readLogin(path); err != nil {
			bad(at+field, "%v", err)
		}
	}
}

// isServerURL tells the URL of a server with an API of its own, perhaps with the path of a proxy, from other text.
func isServerURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && u.User == nil && u.RawQuery == "" && (u.Scheme == "http" || u.Scheme == "https")
}

// modelRegistry makes the client of an MLflow server.
func (e *EventConfig) modelRegistry(maxFile int64) (*webhook.ModelRegistry, error) {
	server := &mlflow.Server{URL: e.Registry, Username: e.MLflow.Username}
	for path, to := range map[string]*string{e.MLflow.PasswordFile: &server.Password, e.MLflow.TokenFile: &server.Token} {
		if path == "" {
			continue
		}
		var err error
		if *to, err = readLogin(path); err != nil {
			return nil, fmt.Errorf("events.%s: %w", mlflowKind, err)
		}
	}
	return &webhook.ModelRegistry{Server: server, Alias: e.MLflow.Alias, Experiment: e.MLflow.Experiment, MaxFile: maxFile}, nil
}

// readLogin reads a password or a token; white space around it does not count.
func readLogin(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return text, nil
}
