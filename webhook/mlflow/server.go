// Package mlflow speaks the REST API of an MLflow tracking server with a model registry, as of MLflow 3: the files of a model version, runs to keep
// files in, new versions with tags, and aliases. Files go through the server's own artifact endpoint (mlflow server --serve-artifacts), so that
// no credentials of a bucket are needed.
package mlflow

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"grindstone/webhook/remotefile"
)

// Server is a tracking server.
type Server struct {
	URL      string // http or https, perhaps with the path of a proxy
	Username string // of HTTP Basic; "" sends none
	Password string
	Token    string // Bearer, in place of a username
}

// Host is the server's host, with its port.
func (s *Server) Host() string {
	u, err := url.Parse(s.URL)
	if err != nil {
		return "MLflow"
	}
	return u.Host
}

const (
	callTime  = 30 * time.Second // a call of the API, without files
	maxAnswer = 8 << 20          // bytes of JSON
)

// client follows no redirects: it would be somebody else who answers.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// do sends a request. The answer is 2xx, and its body is to be closed.
func (s *Server) do(ctx context.Context, method, path string, query url.Values, body io.Reader, size int64) (*http.Response, error) {
	target := strings.TrimSuffix(s.URL, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.ContentLength = size
		r.Header.Set("Content-Type", "application/octet-stream")
		if strings.HasPrefix(path, apiPath) {
			r.Header.Set("Content-Type", "application/json")
		}
	}
	switch {
	case s.Token != "":
		r.Header.Set("Authorization", "Bearer "+s.Token)
	case s.Username != "":
		r.SetBasicAuth(s.Username, s.Password)
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode/100 == 2 {
		return answer, nil
	}
	defer answer.Body.Close()
	var failure struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)) // what cannot be read says nothing
	_ = json.Unmarshal(text, &failure)
	err = fmt.Errorf("MLflow answers %s %s with %d %s: %.300s", method, path, answer.StatusCode, failure.Code, failure.Message)
	if answer.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", remotefile.ErrNotFound, err)
	}
	return nil, err
}

const apiPath = "/api/2.0/mlflow/"

// get and post call the API and read its JSON.
func (s *Server) get(ctx context.Context, method string, query url.Values, into any) error {
	return s.call(ctx, http.MethodGet, apiPath+method, query, nil, into)
}

func (s *Server) post(ctx context.Context, method string, body, into any) error {
	return s.call(ctx, http.MethodPost, apiPath+method, nil, body, into)
}

func (s *Server) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var sent io.Reader
	var size int64
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent, size = bytes.NewReader(text), int64(len(text))
	}
	answer, err := s.do(ctx, method, path, query, sent, size)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("MLflow's answer to %s: %w", path, err)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("MLflow's answer to %s is not what its API says: %w", path, err)
	}
	return nil
}
