package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"slices"
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
	users   *users
	passed  map[[sha256.Size]byte]time.Time // credentials that were right, until when that is believed
}

// users are the hashes of a file by user.
type users struct {
	hashes  map[string][]byte
	highest int // cost of all
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
	waiting = make(chan struct{}, 64)                    // nor keep others for long from logging in
	pepper  = func() (key [32]byte) { _, _ = rand.Read(key[:]); return }()
)

// dummy is a hash that takes as long as any of this cost, and that no password has.
func dummy(cost int) []byte { return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat(".", 22+31)) } // salt and hash of zeros

// against returns the hashes that a wrong password is compared with. They take the same time for every name, or it would tell which users there
// are: each cost takes twice the time of the one below, so a hash and one of every cost from its own on take as long as one of the highest.
func (u *users) against(user string) [][]byte {
	hash, known := u.hashes[user]
	if !known {
		return [][]byte{dummy(u.highest)}
	}
	all := [][]byte{hash}
	cost, _ := bcrypt.Cost(hash) // was looked at when the file was read
	for ; cost < u.highest; cost++ {
		all = append(all, dummy(cost))
	}
	return all
}

// read returns the users. A file that changed and cannot be read is an error: a user may have been removed from it.
func (h *htpasswd) read() (*users, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	info, err := os.Stat(h.path)
	if err != nil {
		return nil, err
	}
	state := fileState{info.ModTime(), info.Size()}
	if state == h.version && h.users != nil {
		return h.users, nil
	}
	data, err := os.ReadFile(h.path)
	if err != nil {
		return nil, err
	}
	users, err := parseHtpasswd(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.path, err)
	}
	h.version, h.users, h.passed = state, users, map[[sha256.Size]byte]time.Time{}
	return users, nil
}

func parseHtpasswd(data []byte) (*users, error) {
	u := &users{hashes: map[string][]byte{}}
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
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			return nil, fmt.Errorf("line %d: the hash of %q is not bcrypt: make it with htpasswd -B", n, user)
		}
		if _, twice := u.hashes[user]; twice {
			return nil, fmt.Errorf("line %d: %q is there twice", n, user)
		}
		u.hashes[user], u.highest = []byte(hash), max(u.highest, cost)
	}
	return u, lines.Err()
}

func (h *htpasswd) check(ctx context.Context, user, password string) (Identity, error) {
	users, err := h.read()
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	key := sha256.Sum256(fmt.Appendf(pepper[:], "%d:%s%s%s", len(user), user, users.hashes[user], password))
	h.mu.Lock()
	passed := time.Now().Before(h.passed[key])
	h.mu.Unlock()
	if passed {
		return Identity{Name: user}, nil
	}
	right, err := compare(ctx, users.against(user), password)
	if err != nil {
		return Identity{}, err
	}
	if !right {
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

// compare reports whether the password is that of one of the hashes, when it is its turn. It is refused where too many wait already.
func compare(ctx context.Context, hashes [][]byte, password string) (bool, error) {
	select {
	case waiting <- struct{}{}:
	default:
		return false, fmt.Errorf("%w: %d others wait to have their passwords checked", ErrUnavailable, cap(waiting))
	}
	select {
	case hashing <- struct{}{}:
		<-waiting
	case <-ctx.Done():
		<-waiting
		return false, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	defer func() { <-hashing }()
	return slices.ContainsFunc(hashes, func(hash []byte) bool { return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil }), nil
}
