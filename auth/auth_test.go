package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func line(t *testing.T, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func login(a *Authenticator, user, password string) (Identity, error) {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.SetBasicAuth(user, password)
	return a.Authenticate(r)
}

func TestHtpasswd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	write(t, path, "# people\n\n"+line(t, "alice", "open sesame")+line(t, "bob", "b:o:b"))
	a, err := New(Config{Htpasswd: path})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from memory
		if id, err := login(a, "alice", "open sesame"); err != nil || id.Name != "alice" {
			t.Errorf("%+v, %v", id, err)
		}
	}
	if id, err := login(a, "bob", "b:o:b"); err != nil || id.Name != "bob" {
		t.Errorf("%+v, %v", id, err)
	}
	for _, wrong := range [][2]string{{"alice", "open"}, {"alice", ""}, {"bob", "open sesame"}, {"eve", "open sesame"}, {"", ""}, {"oauth2accesstoken", "x"}} {
		if id, err := login(a, wrong[0], wrong[1]); !errors.Is(err, ErrCredentials) || id.Name != "" {
			t.Errorf("%v: %+v, %v", wrong, id, err)
		}
	}
	// Who is taken out of the file is out at once, although the password was right a moment ago.
	write(t, path, line(t, "bob", "new"))
	if _, err := login(a, "alice", "open sesame"); !errors.Is(err, ErrCredentials) {
		t.Errorf("a user who was removed: %v", err)
	}
	if _, err := login(a, "bob", "b:o:b"); !errors.Is(err, ErrCredentials) {
		t.Errorf("an old password: %v", err)
	}
	if _, err := login(a, "bob", "new"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := login(a, "bob", "new"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without its file: %v", err)
	}
}

func TestHtpasswdTakesBcryptOnly(t *testing.T) {
	for text, want := range map[string]string{
		"alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n": "not bcrypt",
		"alice:password\n":                          "not bcrypt",
		"alice\n":                                   "line 1 is not user:hash",
		line(t, "a", "1") + line(t, "a", "2"):       "twice",
		line(t, "anonymous", "1"):                   "cannot be a user's name",
	} {
		path := filepath.Join(t.TempDir(), "htpasswd")
		write(t, path, text)
		if _, err := New(Config{Htpasswd: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// How long a wrong password takes tells neither whether there is such a user nor what his hash costs, also after the file was changed.
func TestTimeDoesNotTellUsers(t *testing.T) {
	hash := func(user string, cost int) string {
		hash, err := bcrypt.GenerateFromPassword([]byte("sesame"), cost)
		if err != nil {
			t.Fatal(err)
		}
		return user + ":" + string(hash) + "\n"
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	write(t, path, "")
	a, err := New(Config{Htpasswd: path})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{hash("alice", 4), hash("alice", 4) + hash("bob", 6) + hash("carol", 8), hash("alice", 4) + "# smaller\n" + hash("bob", 5)} {
		write(t, path, file)
		users, err := a.users.read()
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"alice", "bob", "carol", "nobody"} {
			work := 0
			for _, hash := range users.against(user) {
				cost, err := bcrypt.Cost(hash)
				if err != nil {
					t.Fatal(err)
				}
				work += 1 << cost
			}
			if work != 1<<users.highest {
				t.Errorf("%s takes %d rounds where the highest cost is %d", user, work, users.highest)
			}
		}
	}
	write(t, path, hash("alice", 4)+hash("bob", 9))
	least := func(user string) time.Duration {
		least := time.Hour
		for range 5 {
			begin := time.Now()
			if _, err := login(a, user, "guess"); !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
			least = min(least, time.Since(begin))
		}
		return least
	}
	alice, nobody := least("alice"), least("nobody")
	if alice > 3*nobody || nobody > 3*alice {
		t.Errorf("a user takes %v, nobody %v", alice, nobody)
	}
}

// Guesses queue up to a bound and no longer than their clients wait; whose password was right a moment ago does not notice.
func TestGuessesWaitInABoundedQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	write(t, path, line(t, "alice", "sesame")+line(t, "bob", "b"))
	a, err := New(Config{Htpasswd: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := login(a, "alice", "sesame"); err != nil {
		t.Fatal(err)
	}
	for range cap(hashing) {
		hashing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	refused := make(chan error, cap(waiting))
	for range cap(waiting) {
		go func() {
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v2/", nil)
			r.SetBasicAuth("eve", "guess")
			_, err := a.Authenticate(r)
			refused <- err
		}()
	}
	for len(waiting) < cap(waiting) {
		time.Sleep(time.Millisecond)
	}
	r, w := httptest.NewRequest(http.MethodGet, "/v2/", nil), httptest.NewRecorder()
	r.SetBasicAuth("bob", "b")
	a.Middleware(func(ctx context.Context, _ string) context.Context { return ctx })(nil).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d %v", w.Code, w.Header())
	}
	if _, err := login(a, "alice", "sesame"); err != nil {
		t.Errorf("a password that is known: %v", err)
	}
	cancel()
	for range cap(waiting) {
		if err := <-refused; !errors.Is(err, context.Canceled) || errors.Is(err, ErrCredentials) {
			t.Errorf("a client that went away: %v", err)
		}
	}
	for range cap(hashing) {
		<-hashing
	}
	if _, err := login(a, "bob", "b"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func bearer(a *Authenticator, token string) (Identity, error) {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return a.Authenticate(r)
}

func TestOIDC(t *testing.T) {
	i := newTestIssuer(t)
	a, err := New(Config{OIDC: []OIDC{{Issuer: i.url, Audience: "grindstone", IdentityClaim: "email", GroupsClaim: "groups"}}})
	if err != nil {
		t.Fatal(err)
	}
	good := i.mint(i.key, nil)
	id, err := bearer(a, good)
	if err != nil || id.Name != "oidc:ci@example.org" || !slices.Equal(id.Groups, []string{"group:ml", "group:ops"}) {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err := login(a, "oauth2accesstoken", good); err != nil || id.Name != "oidc:ci@example.org" {
		t.Errorf("as a password: %+v, %v", id, err)
	}
	if id, err := bearer(a, i.mint(i.key, map[string]any{"groups": "solo"})); err != nil || !slices.Equal(id.Groups, []string{"group:solo"}) {
		t.Errorf("%+v, %v", id, err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"another key":        i.mint(other, nil),
		"another audience":   i.mint(i.key, map[string]any{"aud": "other"}),
		"another issuer":     i.mint(i.key, map[string]any{"iss": "https://evil.example.com"}),
		"run out":            i.mint(i.key, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}),
		"not yet":            i.mint(i.key, map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"no name":            i.mint(i.key, map[string]any{"email": nil}),
		"address unverified": i.mint(i.key, map[string]any{"email_verified": false}),
		"no signature":       "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"another's payload":  parts[0] + "." + strings.Split(i.mint(i.key, map[string]any{"email": "root@example.org"}), ".")[1] + "." + parts[2],
		"not a token":        "abc",
		"empty":              "",
	} {
		if id, err := bearer(a, token); !errors.Is(err, ErrCredentials) || id.Name != "" {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

// What two issuers say of themselves is told apart, whatever their claims are.
func TestIssuersHaveNamesOfTheirOwn(t *testing.T) {
	corp, public := newTestIssuer(t), newTestIssuer(t)
	with := func(prefixes ...string) Config {
		c := Config{}
		for n, p := range prefixes {
			c.OIDC = append(c.OIDC, OIDC{Issuer: []string{corp.url, public.url}[n], Audience: "grindstone", GroupsClaim: "groups", Prefix: p})
		}
		return c
	}
	a, err := New(with("corp:", "public:"))
	if err != nil {
		t.Fatal(err)
	}
	for prefix, issuer := range map[string]*testIssuer{"corp:": corp, "public:": public} {
		for _, claim := range []string{"root", "corp:root", "group:corp:ml"} {
			id, err := bearer(a, issuer.mint(issuer.key, map[string]any{"sub": claim, "groups": []string{claim}}))
			if err != nil || id.Name != prefix+claim || !slices.Equal(id.Groups, []string{"group:" + prefix + claim}) {
				t.Errorf("%q of %s: %+v, %v", claim, prefix, id, err)
			}
		}
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{with("", ""), "more than one issuer"},
		{with("corp:", ""), "more than one issuer"},
		{with("corp:", "corp:"), "another issuer's"},
		{with("corp"), "a word and a colon"},
		{with("corp:a:"), "a word and a colon"},
		{with("group:"), "taken"},
		{with("cert:"), "taken"},
	} {
		if _, err := New(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.config.OIDC, err)
		}
	}
}

func TestOIDCWithoutItsIssuer(t *testing.T) {
	if _, err := New(Config{OIDC: []OIDC{{Issuer: "https://login.example.com"}}}); err == nil || !strings.Contains(err.Error(), "audience") {
		t.Errorf("without an audience: %v", err)
	}
	if _, err := New(Config{OIDC: []OIDC{{Issuer: "http://login.example.com", Audience: "a"}}}); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("without TLS: %v", err)
	}
	a, err := New(Config{OIDC: []OIDC{{Issuer: "http://127.0.0.1:1", Audience: "grindstone"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bearer(a, "a.b.c"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestRoles(t *testing.T) {
	below := func(prefix string) func(string) bool {
		return func(repository string) bool { return strings.HasPrefix(repository, prefix) }
	}
	a, err := New(Config{Anonymous: "", Rules: []Rule{
		{[]string{"alice", "group:ml"}, below("models/"), Push},
		{[]string{"*"}, below("models/public/"), Pull},
		{[]string{"anonymous"}, below("open/"), Pull},
		{[]string{"oidc:*@example.org"}, below("models/ops/"), Operator},
	}})
	if err != nil {
		t.Fatal(err)
	}
	alice, ci := Identity{Name: "alice"}, Identity{Name: "oidc:ci@example.org", Groups: []string{"group:ml"}}
	for _, c := range []struct {
		who        Identity
		repository string
		roles      []Role
	}{
		{alice, "models/a", []Role{Pull, Push}},
		{alice, "other/a", nil},
		{alice, "models/ops/a", []Role{Pull, Push}},
		{ci, "models/ops/a", []Role{Pull, Push, Operator}},
		{ci, "models/a", []Role{Pull, Push}},
		{Identity{Name: "bob"}, "models/public/a", []Role{Pull}},
		{Identity{Name: "bob"}, "models/a", nil},
		{Identity{}, "models/public/a", nil}, // * is everybody who has a name
		{Identity{}, "open/a", []Role{Pull}},
		{Identity{Name: "bob"}, "open/a", nil},
		{Identity{Name: "oidc:x@example.org.evil"}, "models/ops/a", nil},
		{Identity{Name: "alicea"}, "models/a", nil},
	} {
		ctx := context.WithValue(t.Context(), contextKey{}, visitor{c.who, true})
		for _, role := range Roles {
			if got, want := a.Allowed(ctx, c.repository, role), slices.Contains(c.roles, role); got != want {
				t.Errorf("%q may %s %s: %v, want %v", c.who.Name, role, c.repository, got, want)
			}
		}
	}
	if a.Allowed(t.Context(), "open/b/../../models", Push) {
		t.Error("without an identity in the context")
	}
}

func TestAnonymousIsForLoopback(t *testing.T) {
	for _, c := range []struct {
		config   Config
		loopback bool
		roles    []Role
	}{
		{Config{Loopback: true}, true, []Role{Pull, Push}},
		{Config{Loopback: true}, false, nil},
		{Config{}, true, nil},
		{Config{Anonymous: Pull}, false, []Role{Pull}},
		{Config{Anonymous: Pull, Loopback: true}, true, []Role{Pull, Push}},
		{Config{Anonymous: Push}, false, []Role{Pull, Push}},
	} {
		a, err := New(c.config)
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.WithValue(t.Context(), contextKey{}, visitor{Identity{}, c.loopback})
		for _, role := range Roles {
			if got, want := a.Allowed(ctx, "models/a", role), slices.Contains(c.roles, role); got != want {
				t.Errorf("%+v, loopback %v: %s is %v, want %v", c.config, c.loopback, role, got, want)
			}
		}
	}
}

func TestMiddleware(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	write(t, path, line(t, "alice", "sesame"))
	a, err := New(Config{Htpasswd: path})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	named := func(ctx context.Context, who string) context.Context {
		seen = append(seen, who)
		return ctx
	}
	h := a.Middleware(named)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Who", FromContext(r.Context()).Name)
	}))
	ask := func(user, password string) *httptest.ResponseRecorder {
		r, w := httptest.NewRequest(http.MethodGet, "/v2/", nil), httptest.NewRecorder()
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		h.ServeHTTP(w, r)
		return w
	}
	if w := ask("alice", "sesame"); w.Code != http.StatusOK || w.Header().Get("X-Who") != "alice" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := ask("", ""); w.Code != http.StatusOK || w.Header().Get("X-Who") != "" {
		t.Errorf("anonymous: %d %v", w.Code, w.Header())
	}
	w := ask("alice", "wrong")
	if w.Code != http.StatusUnauthorized || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") || !strings.Contains(w.Body.String(), `"code":"UNAUTHORIZED"`) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if !slices.Equal(seen, []string{"alice", ""}) {
		t.Errorf("%q", seen)
	}
}
