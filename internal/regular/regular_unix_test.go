//go:build unix

package regular

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestOnlyRegularFiles: what leads elsewhere, never ends or is too large is refused, at once.
func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), []byte("12345"), 0o600), os.Symlink(at("file"), at("link")), os.Symlink("/dev/zero", at("endless")),
		os.WriteFile(at("sparse"), nil, 0o600), os.Truncate(at("sparse"), 1<<40), syscall.Mkfifo(at("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"file": nil, "link": ErrKind, "endless": ErrKind, "pipe": ErrKind, "sparse": ErrSize, "nothing": os.ErrNotExist, ".": ErrKind,
	} {
		done := make(chan error, 1)
		go func() {
			text, err := Read(at(name), 5)
			if err == nil && string(text) != "12345" {
				err = errors.New(string(text))
			}
			done <- err
		}()
		select {
		case err := <-done:
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is read without end", name)
		}
	}
}
