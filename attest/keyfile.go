package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

const maxKeyFile = 64 << 10 // bytes

// LoadOrCreateKey reads the private key in path, or creates one there if there is no such file: ECDSA P-256 as PKCS #8 in PEM, mode
// 0600, whole or not at all even when two processes start at once or the machine stops. Keys that cosign or sigstore encrypted
// ("ENCRYPTED SIGSTORE PRIVATE KEY") are read with the password; password may be nil where none is needed. A file that everybody can
// read, or that its group can write, is refused; a group may read it, as Kubernetes mounts secrets so. Errors are ErrKey.
func LoadOrCreateKey(path string, password func() ([]byte, error)) (*Key, error) {
	key, err := loadKey(path, password)
	if errors.Is(err, fs.ErrNotExist) {
		if err = CreateKey(path, ""); err == nil {
			key, err = loadKey(path, password)
		}
	}
	if err != nil && !errors.Is(err, ErrKey) {
		err = fmt.Errorf("%w: %w", ErrKey, err)
	}
	return key, err
}

// CheckKey reports why LoadOrCreateKey could not use the key in path; that there is none yet is no reason. Whether an encrypted key can be decrypted is
// known only with its password: without one ("") it passes.
func CheckKey(path, password string) error {
	_, err := loadKey(path, func() ([]byte, error) {
		if password == "" {
			return nil, errNoPassword
		}
		return []byte(password), nil
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoPassword) {
		return nil
	}
	return err
}

var errNoPassword = errors.New("no password was given")

func loadKey(path string, password func() ([]byte, error)) (*Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrKey, path)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%w: %s has mode %#o and is open to others; run: chmod 600 %s", ErrKey, path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrKey, path, maxKeyFile)
	}
	private, err := parsePrivateKey(text, password)
	clear(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, path, err)
	}
	signer, err := signature.LoadSignerVerifier(private, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, path, err)
	}
	key, err := NewKey(signer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func parsePrivateKey(text []byte, password func() ([]byte, error)) (crypto.PrivateKey, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("not a PEM file")
	case len(rest) > 0 && string(rest) != "\n":
		return nil, errors.New("there is something after the PEM block")
	}
	switch block.Type {
	case "PRIVATE KEY", "EC PRIVATE KEY":
		return cryptoutils.UnmarshalPEMToPrivateKey(text, nil)
	case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
	default:
		return nil, fmt.Errorf("PEM block %q is not supported: convert it to PKCS #8 (PRIVATE KEY), or import it with cosign import-key-pair", block.Type)
	}
	if password == nil {
		return nil, errors.New("it is encrypted and no password was given")
	}
	given, err := password()
	if err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if given == nil {
		given = []byte{} // an empty password is one; nil would mean "not encrypted" below
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(text, func(bool) ([]byte, error) { return given, nil })
	if err != nil {
		return nil, fmt.Errorf("cannot be decrypted, the password may be wrong: %w", err)
	}
	return private, nil
}

// CreateKey writes a new key to path, unless there is a file of that name. With a password it is encrypted, as cosign does it. It is written beside path first and
// then given its name, if nobody has taken that in the meantime.
func CreateKey(path, password string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	text, err := encodeKey(private, password)
	if err != nil {
		return err
	}
	defer clear(text)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // O_EXCL, mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := writeAndClose(file, text); err != nil {
		return err
	}
	err = os.Link(file.Name(), path)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without hard links
		if file, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			err = writeAndClose(file, text)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody else's key is as good
	}
	return errors.Join(err, syncDir(dir))
}

// encodeKey is a private key in PEM, encrypted if there is a password.
func encodeKey(private *ecdsa.PrivateKey, password string) ([]byte, error) {
	if password == "" {
		return cryptoutils.MarshalPrivateKeyToPEM(private)
	}
	der, err := cryptoutils.MarshalPrivateKeyToEncryptedDER(private, func(bool) ([]byte, error) { return []byte(password), nil })
	if err != nil {
		return nil, err
	}
	return cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, der), nil
}

func writeAndClose(file *os.File, text []byte) error {
	_, err := file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// syncDir makes a new name survive a crash.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
