package remotefile

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSafe(t *testing.T) {
	for name, want := range map[string]bool{
		"model.onnx": true, "a/b": true, "ünï code": true, "..": false, "a/../b": false, "/a": false, "a//b": false, "": false, ".": false, `a\b`: false, "c:x": false, "a\nb": false,
	} {
		if Safe(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestEscaped(t *testing.T) {
	if got := Escaped("a b/c?d/e#f%/ü"); got != "a%20b/c%3Fd/e%23f%25/%C3%BC" {
		t.Error(got)
	}
}

func TestCopy(t *testing.T) {
	for limit, want := range map[int64]error{7: nil, 8: nil, 6: ErrUnsupported} {
		var to bytes.Buffer
		if err := Copy(t.Context(), &to, strings.NewReader("content"), "f", limit); !errors.Is(err, want) || err == nil && to.String() != "content" {
			t.Errorf("%d: %q %v", limit, to.String(), err)
		}
	}
	if err := Copy(t.Context(), io.Discard, iotest.ErrReader(io.ErrUnexpectedEOF), "f", 9); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// A transfer that stands still ends its context, and one that moves does not.
func TestWhileMoving(t *testing.T) {
	ctx, transfer := WhileMoving(t.Context())
	defer transfer.Stop()
	if text, err := io.ReadAll(transfer.Reader(iotest.OneByteReader(strings.NewReader("content")))); string(text) != "content" || err != nil || ctx.Err() != nil {
		t.Errorf("%q %v %v", text, err, ctx.Err())
	}
	transfer.timer.Reset(0)
	<-ctx.Done()
	if err := Copy(ctx, io.Discard, iotest.ErrReader(ctx.Err()), "f", 9); err == nil || !strings.Contains(err.Error(), "nothing moved") {
		t.Error(err)
	}
}
