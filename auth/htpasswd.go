package auth

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// htpasswd is a file of user:hash lines, as `htpasswd -B` writes them. It is read again when it changes; only bcrypt is taken.
type htpasswd struct {
	path string

	mu      sync.Mutex
	version fileState
	hashes  map[string][]byte
	passed  map[[sha256.Size]byte]time.Time // credentials that were right, until when that is believed
}

// fileState tells one version of a file from the next.
type fileState struct {
	modified time.Time
	size     int64
}

// believed is how long right credentials need no hashing, which takes tens of milliseconds on purpose.
const believed = time.Minute

var (
	hashing = make(chan struct{}, runtime.GOMAXPROCS(0)) // guesses cannot take more than the machine
	pepper  = func() (key [32]byte) { _, _ = rand.Read(key[:]); return }()
	// nobody is the hash for users that do not exist, so that they take as long.
	nobody = sync.OnceValue(func() []byte { h, _ := bcrypt.GenerateFromPassword(pepper[:16], bcrypt.DefaultCost); return h })
)

// read returns the hashes by user. A file that changed and cannot be read is an error: a user may have been removed from it.
func (h *htpasswd) read() (map[string][]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	info, err := os.Stat(h.path)
	if err != nil {
		return nil, err
	}
	state := fileState{info.ModTime(), info.Size()}
	if state == h.version && h.hashes != nil {
		return h.hashes, nil
	}
	data, err := os.ReadFile(h.path)
	if err != nil {
		return nil, err
	}
	hashes, err := parseHtpasswd(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.path, err)
	}
	h.version, h.hashes, h.passed = state, hashes, map[[sha256.Size]byte]time.Time{}
	return hashes, nil
}

func parseHtpasswd(data []byte) (map[string][]byte, error) {
	hashes := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, fmt.Errorf("line %d is not user:hash", n)
		}
		if user == anonymous || isToken(user) {
			return nil, fmt.Errorf("line %d: %q cannot be a user's name", n, user)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fmt.Errorf("line %d: the hash of %q is not bcrypt: make it with htpasswd -B", n, user)
		}
		if _, twice := hashes[user]; twice {
			return nil, fmt.Errorf("line %d: %q is there twice", n, user)
		}
		hashes[user] = []byte(hash)
	}
	return hashes, lines.Err()
}

func (h *htpasswd) check(user, password string) (Identity, error) {
	hashes, err := h.read()
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	hash, known := hashes[user]
	if !known {
		hash = nobody()
	}
	key := sha256.Sum256(fmt.Appendf(pepper[:], "%d:%s%s%s", len(user), user, hash, password))
	h.mu.Lock()
	passed := time.Now().Before(h.passed[key])
	h.mu.Unlock()
	if passed {
		return Identity{Name: user}, nil
	}
	hashing <- struct{}{}
	err = bcrypt.CompareHashAndPassword(hash, []byte(password))
	<-hashing
	if err != nil || !known {
		return Identity{}, fmt.Errorf("%w: user %.60q", ErrCredentials, user)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, until := range h.passed {
		if time.Now().After(until) {
			delete(h.passed, k)
		}
	}
	h.passed[key] = time.Now().Add(believed)
	return Identity{Name: user}, nil
}
