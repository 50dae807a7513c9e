package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// grants remembers for a moment what the upstream allows. What it refuses is asked anew each time.
type grants struct {
	mu    sync.Mutex
	until map[grant]time.Time
}

// grant is a credential that may push to a repository. The credential is kept as a hash; "" is none.
type grant struct{ repository, credential string }

const grantFor = time.Minute

func (g *grants) has(k grant) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.until[k])
}

func (g *grants) add(k grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for k, until := range g.until {
		if now.After(until) {
			delete(g.until, k)
		}
	}
	if g.until == nil {
		g.until = map[grant]time.Time{}
	}
	g.until[k] = now.Add(grantFor)
}

// pusher returns who pushes to a repository with the request's credentials, which the gateway cannot check itself: it begins an
// upload with them at the upstream, and takes it back. An upstream that refuses is quoted to the client, challenge and all. The
// name is the user's of Basic credentials, or a Bearer token's subject; an upstream that lets everybody push knows no names.
func (u *upstream) pusher(r *http.Request, repository string) (string, error) {
	credential := r.Header.Get("Authorization")
	if err := u.mayPush(r.Context(), repository, credential); err != nil {
		return "", err
	}
	if credential == "" || u.mayPush(r.Context(), repository, "") == nil {
		return "", nil
	}
	if user, _, ok := r.BasicAuth(); ok {
		return user, nil
	}
	if scheme, token, ok := strings.Cut(credential, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return subject(token), nil
	}
	return "", nil
}

// mayPush asks the upstream. The error is its answer, or that it cannot be asked.
func (u *upstream) mayPush(ctx context.Context, repository, credential string) error {
	key := grant{repository: repository}
	if credential != "" {
		key.credential = fmt.Sprintf("%x", sha256.Sum256([]byte(credential)))
	}
	if u.grants.has(key) {
		return nil
	}
	begun, err := u.send(ctx, http.MethodPost, u.origin.JoinPath("v2", repository, "blobs/uploads/").String(), credential)
	if err != nil {
		return unreachable(err)
	}
	defer begun.Body.Close()
	if begun.StatusCode != http.StatusAccepted {
		body, err := io.ReadAll(io.LimitReader(begun.Body, 64<<10))
		if err != nil {
			return unreachable(err)
		}
		return &quoted{begun.StatusCode, begun.Header, body}
	}
	drain(begun.Body)
	u.grants.add(key)
	if session, err := u.origin.Parse(begun.Header.Get("Location")); err == nil && session.Host == u.origin.Host {
		if ended, err := u.send(context.WithoutCancel(ctx), http.MethodDelete, session.String(), credential); err == nil { //nolint:bodyclose // drain closes it
			drain(ended.Body)
		}
	}
	return nil
}

// mayRead asks the upstream whether it gives a blob to the request's credentials. A redirect is no answer: it could lead to a login.
func (u *upstream) mayRead(r *http.Request, repository string, d digest.Digest) (bool, error) {
	blob := route{kind: blobs, repository: repository, reference: d.String()}
	answer, err := u.send(r.Context(), http.MethodHead, u.origin.JoinPath(blob.path()).String(), r.Header.Get("Authorization")) //nolint:bodyclose // drain closes it
	if err != nil {
		return false, unreachable(err)
	}
	drain(answer.Body)
	return answer.StatusCode == http.StatusOK, nil
}

func (u *upstream) send(ctx context.Context, method, to, credential string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	r, err := http.NewRequestWithContext(ctx, method, to, http.NoBody)
	if err != nil {
		cancel()
		return nil, err
	}
	if credential != "" {
		r.Header.Set("Authorization", credential)
	}
	answer, err := u.transport.RoundTrip(r)
	if err != nil {
		cancel()
		return nil, err
	}
	answer.Body = endsWith{answer.Body, cancel}
	return answer, nil
}

// endsWith calls a function when the body is closed.
type endsWith struct {
	io.ReadCloser
	end func()
}

func (e endsWith) Close() error {
	defer e.end()
	return e.ReadCloser.Close()
}

// subject reads the subject of a token that the upstream took for good. "" for tokens that are no JWT.
func subject(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Subject
}

// quoted is an answer of the upstream that is passed on as it is.
type quoted struct {
	status int
	header http.Header
	body   []byte
}

func (q *quoted) Error() string { return fmt.Sprintf("the upstream registry answers %d", q.status) }

func (q *quoted) write(w http.ResponseWriter) {
	for name, values := range q.header {
		if name != "Connection" && name != "Transfer-Encoding" && name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(q.status)
	_, _ = w.Write(q.body) // a client that went away cannot be told
}
