package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"golang.org/x/crypto/bcrypt"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote/auth"

	"grindstone/webhook"
)

// oidcIssuer is an OpenID provider on loopback. mint signs a token with claims over the usual ones.
func oidcIssuer(t *testing.T) (url string, mint func(claims map[string]any) string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	h := httptest.NewServer(mux)
	t.Cleanup(h.Close)
	reply := func(path string, v any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	reply("/.well-known/openid-configuration", map[string]any{
		"issuer": h.URL, "jwks_uri": h.URL + "/keys", "authorization_endpoint": h.URL + "/a", "token_endpoint": h.URL + "/t",
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"ES256"},
	})
	reply("/keys", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h.URL, func(over map[string]any) string {
		claims := map[string]any{"iss": h.URL, "aud": "grindstone", "sub": "someone", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
		maps.Copy(claims, over)
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
}

// certificates makes an authority in dir (ca.pem) and certificates of it, as NAME.crt and NAME.key, for loopback and for clients.
func certificates(t *testing.T, dir string, names ...string) *x509.CertPool {
	t.Helper()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var parent *x509.Certificate
	var parentKey *ecdsa.PrivateKey
	pool := x509.NewCertPool()
	for i, name := range append([]string{"ca"}, names...) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if parent == nil {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
			parent, parentKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			write("ca.pem", "CERTIFICATE", der)
			if parent, err = x509.ParseCertificate(der); err != nil {
				t.Fatal(err)
			}
			pool.AddCert(parent)
			continue
		}
		write(name+".crt", "CERTIFICATE", der)
		write(name+".key", "PRIVATE KEY", private)
	}
	return pool
}

// TestLogins pushes as users of an htpasswd file and with OIDC tokens: the policy and the log see who pushes, and roles keep others out.
func TestLogins(t *testing.T) {
	issuer, mint := oidcIssuer(t)
	rego := t.TempDir()
	policy := "package grindstone.admission\n\nimport rego.v1\n\ndecision := {\"action\": \"deny\", \"reasons\": [sprintf(\"%s is not welcome\", [input.identity])]}\n"
	release := "package grindstone.release\n\nimport rego.v1\n\ndecision := {\"release\": false, \"reasons\": [\"never\"], \"claims\": []}\n"
	for name, text := range map[string]string{"admission.rego": policy, "release.rego": release} {
		if err := os.WriteFile(filepath.Join(rego, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := writeConfig(t, t.TempDir(), fmt.Sprintf(`
auth:
  htpasswd: %q
  oidc: [{issuer: %q, audience: grindstone, identity_claim: email, groups_claim: groups}]
  roles:
    - {who: [%s, "group:ml"], repositories: ["models/*"], role: push}
    - {who: ["oidc:*@example.org"], repositories: ["**"], role: operator}
`, passwords(t, alice, bob), issuer, alice))
	s := startServer(t, "--config", config)
	store, pushed := pack(t, tiny{name: "logins"}.file(t))
	push := func(repository string, c auth.Credential) error {
		repo := repositoryOf(t, s.address, repository, "")
		repo.Client = &auth.Client{Credential: auth.StaticCredential(s.address, c), Cache: auth.NewCache()}
		_, err := oras.Copy(context.Background(), store, "v1", repo, "v1", oras.DefaultCopyOptions)
		return err
	}
	ml := mint(map[string]any{"email": "ml@elsewhere.org", "groups": []string{"ml"}})
	for _, c := range []struct {
		name, repository string
		credential       auth.Credential
		identity         string // "" is refused
	}{
		{"a user", "models/a", auth.Credential{Username: alice, Password: alice + alice}, alice},
		{"a token as password", "models/b", auth.Credential{Username: "oauth2accesstoken", Password: ml}, "oidc:ml@elsewhere.org"},
		{"a wrong password", "models/c", auth.Credential{Username: alice, Password: "alice"}, ""},
		{"no role", "models/c", auth.Credential{Username: bob, Password: bob + bob}, ""},
		{"another repository", "other/c", auth.Credential{Username: alice, Password: alice + alice}, ""},
		{"nobody", "models/c", auth.EmptyCredential, ""},
		{"a token for others", "models/c", auth.Credential{Username: "oauth2accesstoken", Password: mint(map[string]any{"aud": "other", "email": "a@example.org"})}, ""},
		{"a token that ran out", "models/c", auth.Credential{Username: "oauth2accesstoken", Password: mint(map[string]any{"exp": 1, "email": "a@example.org"})}, ""},
	} {
		err := push(c.repository, c.credential)
		if (err == nil) != (c.identity != "") {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var list struct{ Admissions []webhook.Admission }
		s.getToken(mint(map[string]any{"email": "op@example.org"}), "/api/v1/admissions?repository="+c.repository, &list)
		if c.identity == "" && len(list.Admissions) > 0 {
			t.Errorf("%s: there is an admission", c.name)
		} else if c.identity != "" && (len(list.Admissions) != 1 || list.Admissions[0].Source.Identity != c.identity) {
			t.Errorf("%s: %+v", c.name, list.Admissions)
		}
	}
	// ggcr sends the token as a Bearer.
	login := crane.WithAuth(authn.FromConfig(authn.AuthConfig{RegistryToken: ml}))
	if _, err := crane.Manifest(s.address+"/models/b@"+pushed.Digest.String(), crane.Insecure, login); err != nil {
		t.Errorf("the pusher's token does not read back what it pushed: %v", err)
	}
	if status := s.getToken(ml, "/metrics", nil); status != http.StatusOK {
		t.Errorf("metrics: %d", status)
	}
	for path, want := range map[string]int{"/metrics": 401, "/api/v1/admissions": 401, "/healthz": 200, "/v2/": 200, "/v2/models/a/tags/list": 401} {
		if status := s.get(path, nil); status != want {
			t.Errorf("anonymous GET %s: %d, want %d", path, status, want)
		}
	}
	// Operating needs the role, in the admission's repository.
	id := s.admissionAs(alice, "models/a").ID
	for who, want := range map[string]int{"": 401, alice: 403, bob: 403} {
		if status, _, text := s.call(who, "POST", "/api/v1/admissions/"+id+"/reject", []byte(`{"reason":"no"}`), "Content-Type", "application/json"); status != want {
			t.Errorf("reject as %q: %d %s", who, status, text)
		}
	}
	status, _, text := s.call("", "POST", "/api/v1/admissions/"+id+"/reject", []byte(`{"reason":"unknown origin"}`), "Content-Type", "application/json",
		"Authorization", "Bearer "+mint(map[string]any{"email": "op@example.org"}))
	if status != http.StatusOK || !strings.Contains(text, "oidc:op@example.org") {
		t.Errorf("reject as an operator: %d %s", status, text)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	log := s.Stderr.String()
	for _, words := range []string{"identity=alice", "identity=oidc:ml@elsewhere.org", "credentials refused"} {
		if !strings.Contains(log, words) {
			t.Errorf("the log has no %q", words)
		}
	}
	for _, secret := range []string{ml, alice + alice} {
		if strings.Contains(log, secret) {
			t.Error("the log has a password or token")
		}
	}
	// The policy sees who pushes.
	again := startServerIn(t, s.dir, "--config", writeConfig(t, t.TempDir(), strings.Replace(readFile(t, config), "auth:", "policy: {dir: "+rego+"}\nauth:", 1)))
	s.address = again.address
	if err := push("models/new", auth.Credential{Username: alice, Password: alice + alice}); err == nil || !strings.Contains(err.Error(), "alice is not welcome") {
		t.Errorf("the policy's word: %v", err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// getToken is get with a Bearer token.
func (s *server) getToken(token, path string, into any) int {
	s.Helper()
	status, _, text := s.call("", "GET", path, nil, "Authorization", "Bearer "+token)
	if into != nil && status == http.StatusOK {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			s.Fatal(err)
		}
	}
	return status
}

// TestTLSLogin serves HTTPS, takes a client certificate for a login, and serves a renewed certificate without a restart.
func TestTLSLogin(t *testing.T) {
	dir := t.TempDir()
	pool := certificates(t, dir, "server", "robot")
	config := writeConfig(t, dir, `
tls: {cert: server.crt, key: server.key, client_ca: ca.pem, client_auth: optional}
auth: {roles: [{who: ["cert:robot"], repositories: ["**"], role: push}]}
`)
	s := startServer(t, "--config", config)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "robot.crt"), filepath.Join(dir, "robot.key"))
	if err != nil {
		t.Fatal(err)
	}
	client := func(pairs ...tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: pairs}, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	}
	store, _ := pack(t, tiny{name: "tls"}.file(t))
	repo := repositoryOf(t, s.address, "models/tls", "")
	repo.PlainHTTP = false
	repo.Client = client(pair)
	if _, err := oras.Copy(t.Context(), store, "v1", repo, "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatalf("push with a certificate: %v", err)
	}
	repo = repositoryOf(t, s.address, "models/other", "")
	repo.PlainHTTP = false
	repo.Client = client()
	if _, err := oras.Copy(t.Context(), store, "v1", repo, "v1", oras.DefaultCopyOptions); err == nil {
		t.Error("a push without a certificate is taken")
	}
	r, err := client(pair).Get("https://" + s.address + "/api/v1/admissions")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var list struct{ Admissions []webhook.Admission }
	if err := json.NewDecoder(r.Body).Decode(&list); err != nil || len(list.Admissions) != 1 || list.Admissions[0].Source.Identity != "cert:robot" {
		t.Errorf("%+v, %v", list, err)
	}
	// A renewal by another authority: the client that trusts the new one alone is served soon.
	pool = certificates(t, dir, "server", "robot")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		r, err := client().Get("https://" + s.address + "/healthz")
		if err == nil {
			r.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the renewed certificate is not served: %v", err)
		}
	}
}

// passwords writes an htpasswd file in which everybody's password is their name, twice.
func passwords(t *testing.T, users ...string) string {
	t.Helper()
	var text strings.Builder
	for _, user := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(user+user), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s:%s\n", user, hash)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
