package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"grindstone/internal/logins"
	"grindstone/internal/loopback"
)

// apiClient talks to a server's API.
type apiClient struct {
	server, token, ca string
	username          string
	passwordStdin     bool
	stdin             func() io.Reader
	password          *string // read from it, once
	stored            string  // Authorization header of the login that another tool has stored, once the server asked for one
}

// apiError is an answer of the server that is not the one hoped for.
type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string {
	switch e.status {
	case http.StatusUnauthorized:
		return "the server asks for credentials: " + e.message + " (--username with --password-stdin, --token or GRINDSTONE_TOKEN; or log in with docker, podman or oras)"
	case http.StatusForbidden:
		return "the server refuses: " + e.message
	}
	return fmt.Sprintf("the server answers %d: %s", e.status, e.message)
}

// serverFlags adds the flags that say how to reach the server.
func serverFlags(cmd *cobra.Command, c *apiClient) {
	cmd.PersistentFlags().StringVar(&c.server, "server", "", "URL of the server (environment: GRINDSTONE_SERVER; default "+defaultServer+"); it may have user:password@. Without any login here, the one that docker, podman or oras has stored for its host is used")
	cmd.PersistentFlags().StringVar(&c.token, "token", "", "bearer token (environment: GRINDSTONE_TOKEN)")
	cmd.PersistentFlags().StringVar(&c.username, "username", "", "user to log in as; needs --password-stdin")
	cmd.PersistentFlags().BoolVar(&c.passwordStdin, "password-stdin", false, "read the user's password from standard input")
	c.stdin = cmd.InOrStdin
	cmd.PersistentFlags().StringVar(&c.ca, "ca", "", caHelp)
}

var defaultServer = "http://" + DefaultConfig().Listen

// do sends a request and returns the answer's open body, or an *apiError for a status of 400 and more. A body is sent as JSON.
func (c *apiClient) do(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	r, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	return c.send(r)
}

// request is a request with what shows who makes it.
func (c *apiClient) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Request, error) {
	server := cmp.Or(c.server, os.Getenv("GRINDSTONE_SERVER"), defaultServer) // what has a password is no default of a flag, which --help prints
	base, err := url.Parse(server)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, usageError("--server %q is no URL of a server, as in %s", server[strings.LastIndex(server, "@")+1:], defaultServer)
	}
	user := base.User
	base.User = nil
	target := base.JoinPath(path)
	target.RawQuery = query.Encode()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, target.String(), content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, c.login(r, user)
}

// login puts into a request who makes it: as the flags say, or the environment, or the server's URL, or what other tools have stored.
func (c *apiClient) login(r *http.Request, user *url.Userinfo) error {
	token := cmp.Or(c.token, os.Getenv("GRINDSTONE_TOKEN"))
	switch password, _ := user.Password(); {
	case (c.username != "") != c.passwordStdin:
		return usageError("--username and --password-stdin go together: the password of the user is read from standard input")
	case c.username != "" && c.token != "":
		return usageError("--username and --token are two logins; give one")
	case c.username != "":
		if c.password == nil {
			text, err := io.ReadAll(io.LimitReader(c.stdin(), 64<<10))
			if err != nil {
				return fmt.Errorf("--password-stdin: %w", err)
			}
			c.password = new(strings.TrimRight(string(text), "\r\n"))
		}
		r.SetBasicAuth(c.username, *c.password)
	case token != "":
		r.Header.Set("Authorization", "Bearer "+token)
	case user != nil:
		r.SetBasicAuth(user.Username(), password)
	case c.stored != "":
		r.Header.Set("Authorization", c.stored)
	}
	return nil
}

// storedLogin finds the login that docker, podman or oras has stored for the server's host, "" if there is none. It is not shown to a server on the network in
// plain text.
func storedLogin(r *http.Request) (string, error) {
	if r.URL.Scheme != "https" && !loopback.Host(r.URL.Hostname()) {
		return "", nil
	}
	store, err := logins.Stored()
	if err != nil {
		return "", err
	}
	login, err := credentials.Credential(store)(r.Context(), r.URL.Host)
	switch {
	case err != nil:
		return "", err
	case login.AccessToken != "":
		return "Bearer " + login.AccessToken, nil
	case login.Username != "" && login.Password != "":
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(login.Username, login.Password)
		return r.Header.Get("Authorization"), nil
	}
	return "", nil
}

// send sends a request. A server that asks who makes one that does not say so is told the stored login.
func (c *apiClient) send(r *http.Request) (*http.Response, error) {
	transport, err := trusting(c.ca)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: transport}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	var unread error
	if answer.StatusCode == http.StatusUnauthorized && r.Header.Get("Authorization") == "" {
		if c.stored, unread = storedLogin(r); c.stored != "" {
			again := r.Clone(r.Context())
			if r.GetBody != nil {
				if again.Body, err = r.GetBody(); err != nil {
					return nil, err
				}
			}
			again.Header.Set("Authorization", c.stored)
			answer.Body.Close()
			if answer, err = client.Do(again); err != nil {
				return nil, err
			}
		}
	}
	if answer.StatusCode >= http.StatusBadRequest {
		defer answer.Body.Close()
		err := readAPIError(answer)
		if unread != nil {
			err = fmt.Errorf("%w; the stored logins cannot be read: %w", err, unread)
		}
		return nil, err
	}
	return answer, nil
}

func readAPIError(answer *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return err
	}
	e := &apiError{answer.StatusCode, strings.TrimSpace(string(text))}
	var body struct {
		Errors []struct{ Message string }
	}
	if json.Unmarshal(text, &body) == nil && len(body.Errors) > 0 {
		e.message = body.Errors[0].Message
	}
	return e
}

// get reads a JSON answer.
func (c *apiClient) get(ctx context.Context, path string, query url.Values, into any) error {
	return c.exchange(ctx, http.MethodGet, path, query, nil, into)
}

// exchange sends a request with a JSON body, if it is not nil, and reads a JSON answer.
func (c *apiClient) exchange(ctx context.Context, method, path string, query url.Values, body, into any) error {
	answer, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return fmt.Errorf("%s %s: the answer is not the JSON that was expected: %w", method, path, err)
	}
	return nil
}

// ago says how long something is past, in one unit.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
