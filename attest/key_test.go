package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

func TestKeyIsCreatedOnceAndReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "sign.key")
	first, err := LoadOrCreateKey(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		t.Fatalf("not PKCS #8 in PEM: %.40s", text)
	}
	if private, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil || private.(*ecdsa.PrivateKey).Curve != elliptic.P256() {
		t.Errorf("%T, %v", private, err)
	}
	second, err := LoadOrCreateKey(path, nil)
	if err != nil || !bytes.Equal(first.PublicPEM(), second.PublicPEM()) || first.Hint() != second.Hint() {
		t.Errorf("read again: another key (%v)", err)
	}
	public, err := ParsePublicKey(first.PublicPEM())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyBundle(signed(t, second, nil).Bundle, public, sha("manifest")); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestKeyCreatedByManyAtOnceIsOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.key")
	hints := make([]string, 8)
	var wg sync.WaitGroup
	for i := range hints {
		wg.Go(func() {
			k, err := LoadOrCreateKey(path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			hints[i] = k.Hint()
		})
	}
	wg.Wait()
	for _, h := range hints {
		if h == "" || h != hints[0] {
			t.Fatalf("hints %q", hints)
		}
	}
}

// encryptedKey is what `cosign generate-key-pair` writes: PKCS #8, encrypted with scrypt and NaCl's secret box, in PEM.
func encryptedKey(t *testing.T, kind string, password []byte) (path string, public *ecdsa.PublicKey) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	box, err := encrypted.Encrypt(der, password)
	if err != nil {
		t.Fatal(err)
	}
	return keyFile(t, kind, box), &private.PublicKey
}

func keyFile(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cosign.key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEncryptedKeys(t *testing.T) {
	for _, kind := range []string{"ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"} {
		for _, secret := range []string{"swordfish", ""} {
			path, public := encryptedKey(t, kind, []byte(secret))
			given := []byte(secret)
			if secret == "" {
				given = nil
			}
			k, err := LoadOrCreateKey(path, func() ([]byte, error) { return given, nil })
			if err != nil {
				t.Fatalf("%s, password %q: %v", kind, secret, err)
			}
			if _, err := VerifyBundle(signed(t, k, nil).Bundle, public, sha("model")); err != nil {
				t.Error(err)
			}
		}
	}
	path, _ := encryptedKey(t, "ENCRYPTED SIGSTORE PRIVATE KEY", []byte("swordfish"))
	refusal := errors.New("no terminal")
	for name, c := range map[string]struct {
		password func() ([]byte, error)
		words    string
	}{
		"none":    {nil, "no password"},
		"wrong":   {func() ([]byte, error) { return []byte("sunfish"), nil }, "password may be wrong"},
		"empty":   {func() ([]byte, error) { return nil, nil }, "password may be wrong"},
		"refused": {func() ([]byte, error) { return nil, refusal }, "no terminal"},
	} {
		if _, err := LoadOrCreateKey(path, c.password); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("password %s: %v; want ErrKey with %q", name, err, c.words)
		}
	}
}

func TestKeyFilesThatAreRefused(t *testing.T) {
	pkcs8 := func(private any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good.key")
	if _, err := LoadOrCreateKey(good, nil); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "sign.key")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct{ path, words string }{
		"P-384":             {keyFile(t, "PRIVATE KEY", pkcs8(p384)), "P-256"},
		"RSA":               {keyFile(t, "PRIVATE KEY", pkcs8(rsaKey)), "P-256"},
		"garbage":           {keyFile(t, "PRIVATE KEY", []byte("garbage")), "asn1"},
		"a public key":      {write(newKey(t).PublicPEM(), 0o600), "PUBLIC KEY"},
		"not PEM":           {write([]byte("key"), 0o600), "not a PEM file"},
		"empty":             {write(nil, 0o600), "not a PEM file"},
		"two keys":          {write(append(bytes.Clone(text), text...), 0o600), "after the PEM block"},
		"large":             {write(make([]byte, maxKeyFile+1), 0o600), "larger"},
		"readable by all":   {write(text, 0o644), "chmod 600"},
		"writable by group": {write(text, 0o660), "chmod 600"},
		"a directory":       {t.TempDir(), "not a regular file"},
	} {
		if _, err := LoadOrCreateKey(c.path, nil); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v; want ErrKey with %q", name, err, c.words)
		}
	}
	if _, err := LoadOrCreateKey(write(text, 0o440), nil); err != nil {
		t.Errorf("as Kubernetes mounts it: %v", err)
	}
}

// TestCreateKeyEncrypted: with a password the new key is encrypted, and a key that is there is left as it is.
func TestCreateKeyEncrypted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "new.key")
	if err := CreateKey(path, "a password"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(text), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----") {
		t.Errorf("%v\n%s", err, text)
	}
	for password, want := range map[string]bool{"a password": true, "another": false} {
		given := func() ([]byte, error) { return []byte(password), nil }
		if _, err := LoadOrCreateKey(path, given); (err == nil) != want {
			t.Errorf("with %q: %v", password, err)
		}
		if err := CheckKey(path, password); (err == nil) != want {
			t.Errorf("checked with %q: %v", password, err)
		}
	}
	if err := CheckKey(path, ""); err != nil {
		t.Errorf("checked without its password: %v", err)
	}
	if err := CreateKey(path, ""); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(text) {
		t.Errorf("the key that was there is another now: %v", err)
	}
}
