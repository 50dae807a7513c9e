package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	*testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	a := &authority{T: t}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.certificate, a.key, a.pem = a.sign(template, nil, nil)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		a.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		a.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.Fatal(err)
	}
	return c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue writes a certificate and its key into dir.
func (a *authority) issue(dir, name string, uri *url.URL) (certFile, keyFile string) {
	a.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if uri != nil {
		template.URIs = []*url.URL{uri}
	}
	_, key, certificate := a.sign(template, a.certificate, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, data := range map[string][]byte{certFile: certificate, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			a.Fatal(err)
		}
	}
	return certFile, keyFile
}

// serveTLS answers every request with the name of who makes it.
func serveTLS(t *testing.T, files TLS) string {
	t.Helper()
	c, err := ServerTLS(files, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := a.Authenticate(r)
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, r.Proto+" "+id.Name)
	})}
	go server.Serve(tls.NewListener(l, c)) //nolint:errcheck // ends with the test
	t.Cleanup(func() { server.Close() })
	return "https://" + l.Addr().String()
}

// ask makes one request with a connection of its own and returns the body and the server's certificate.
func ask(to string, trust *authority, pair ...tls.Certificate) (string, *x509.Certificate, error) {
	pool := x509.NewCertPool()
	pool.AddCert(trust.certificate)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: pair}, DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}}
	r, err := client.Get(to)
	if err != nil {
		return "", nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), r.TLS.PeerCertificates[0], err
}

func TestCertificateReload(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := ca.issue(dir, "first", nil)
	to := serveTLS(t, TLS{CertFile: cert, KeyFile: key})
	body, served, err := ask(to, ca)
	if err != nil || served.Subject.CommonName != "first" || body != "HTTP/2.0 " {
		t.Fatalf("%q %v", body, err)
	}
	until := func(name string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			_, served, err := ask(to, ca)
			if err != nil {
				t.Fatal(err)
			}
			if served.Subject.CommonName == name {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("still %s, not %s", served.Subject.CommonName, name)
			}
		}
	}
	ca.issue(dir, "second", nil)
	until("second")
	// Half of a renewal: the one before stays, until the other half comes.
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	ca.issue(dir, "third", nil)
	fresh, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, old, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	until("second")
	if err := os.WriteFile(key, fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	until("third")
}

func TestClientCertificates(t *testing.T) {
	ca, stranger, dir := newAuthority(t), newAuthority(t), t.TempDir()
	cert, key := ca.issue(dir, "server", nil)
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	pair := func(a *authority, name string, uri *url.URL) tls.Certificate {
		c, k := a.issue(t.TempDir(), name, uri)
		p, err := tls.LoadX509KeyPair(c, k)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	required := serveTLS(t, TLS{CertFile: cert, KeyFile: key, ClientCAFile: caFile, RequireClient: true})
	optional := serveTLS(t, TLS{CertFile: cert, KeyFile: key, ClientCAFile: caFile})
	for _, to := range []string{required, optional} {
		if body, _, err := ask(to, ca, pair(ca, "robot", nil)); err != nil || body != "HTTP/2.0 cert:robot" {
			t.Errorf("%q %v", body, err)
		}
		if body, _, err := ask(to, ca, pair(ca, "robot", &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/ci"})); err != nil || body != "HTTP/2.0 cert:spiffe://example.org/ci" {
			t.Errorf("%q %v", body, err)
		}
		// A stranger's certificate is not named by the server as acceptable, so that the client sends none; forced, it is refused.
		if body, _, err := ask(to, ca, pair(stranger, "robot", nil)); err == nil && body != "HTTP/2.0 " {
			t.Errorf("a stranger is %q", body)
		}
	}
	if body, _, err := ask(required, ca); err == nil {
		t.Errorf("without a certificate: %q", body)
	}
	if body, _, err := ask(optional, ca); err != nil || body != "HTTP/2.0 " {
		t.Errorf("without a certificate: %q %v", body, err)
	}
	// A change of the authority counts without a restart: the stranger is one no more, and who was known is.
	if err := os.WriteFile(caFile, stranger.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	known, unknown := pair(stranger, "robot", nil), pair(ca, "robot", nil)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		body, _, err := ask(required, ca, known)
		if err == nil && body == "HTTP/2.0 cert:robot" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new authority is not taken: %q %v", body, err)
		}
	}
	if body, _, err := ask(required, ca, unknown); err == nil {
		t.Errorf("the authority before is still taken: %q", body)
	}
}
