// Package huggingface reads model repositories of the Hugging Face Hub, or of a server with its API: which commit a ref is at, the files of a
// commit, and their content. What the Hub lists is what is kept: content that does not have the listed hash is an error.
package huggingface

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"grindstone/webhook/remotefile"
)

// Hub is a server.
type Hub struct {
	URL   string                 // http or https, perhaps with the path of a proxy
	Token string                 // Bearer; "" sends none
	Hosts func(host string) bool // to which the Hub may send for the content of large files, by https; nil: none but itself

	once   sync.Once
	client *http.Client
}

const (
	callTime     = 30 * time.Second // a call of the API, without files
	maxAnswer    = 8 << 20          // bytes of JSON
	maxRedirects = 5
)

var errRedirect = errors.New("redirect refused")

// redirect follows the Hub to itself, and to the hosts that keep its files. They are not shown the token: their URLs are signed.
func (h *Hub) redirect(r *http.Request, via []*http.Request) error {
	hub, err := url.Parse(h.URL)
	if err != nil {
		return err
	}
	itself := r.URL.Scheme == hub.Scheme && r.URL.Host == hub.Host
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d", errRedirect, maxRedirects)
	case itself:
		return nil
	case r.URL.User != nil || r.URL.Scheme != "https" && r.URL.Scheme != hub.Scheme || h.Hosts == nil || !h.Hosts(r.URL.Hostname()):
		return fmt.Errorf("%w: the Hub sends to %s://%s, which is none of the hosts that files may come from", errRedirect, r.URL.Scheme, r.URL.Host)
	}
	r.Header.Del("Authorization")
	return nil
}

// get asks for a path below the URL, already escaped. The answer is 200, and its body is to be closed.
func (h *Hub) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	h.once.Do(func() { h.client = &http.Client{CheckRedirect: h.redirect} })
	target := strings.TrimSuffix(h.URL, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept-Encoding", "identity") // the hashes are of what is stored
	if h.Token != "" {
		r.Header.Set("Authorization", "Bearer "+h.Token)
	}
	answer, err := h.client.Do(r)
	if errors.Is(err, errRedirect) {
		return nil, fmt.Errorf("%w: %w", remotefile.ErrUnsupported, unquoted(err))
	}
	if err != nil {
		return nil, unquoted(err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	var failure struct {
		Error string `json:"error"`
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)) // what cannot be read says nothing
	_ = json.Unmarshal(text, &failure)
	err = fmt.Errorf("the Hub answers GET %s with %d: %.300s", path, answer.StatusCode, failure.Error)
	if answer.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", remotefile.ErrNotFound, err)
	}
	return nil, err
}

// unquoted leaves out the URL that was asked for: that of a redirect is signed.
func unquoted(err error) error {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// call reads the JSON that a path of the API answers, and the query of the page that follows; nil after the last.
func (h *Hub) call(ctx context.Context, path string, query url.Values, into any) (next url.Values, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := h.get(ctx, path, query)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("the Hub's answer to %s: %w", path, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return nil, fmt.Errorf("the Hub's answer to %s is not what its API says: %w", path, err)
	}
	return nextPage(answer.Header.Values("Link")), nil
}

// nextPage is the query of the link that is marked as next (RFC 8288). Its host and path are not taken: only the page is another.
func nextPage(links []string) url.Values {
	for _, link := range links {
		target, parameters, found := strings.Cut(link, ">")
		if u, err := url.Parse(strings.TrimPrefix(strings.TrimSpace(target), "<")); found && err == nil && strings.Contains(parameters, `rel="next"`) {
			return u.Query()
		}
	}
	return nil
}
