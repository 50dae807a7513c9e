// Package remotefile has what the clients of model stores share: what cannot be had, names that are safe to use here, and transfers that end
// when they stand still.
package remotefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// What cannot be had. Both are for good: another attempt gives the same.
var (
	ErrNotFound    = errors.New("not there")
	ErrUnsupported = errors.New("not supported")
)

// Safe reports whether a relative path, with slashes, stays where it is put.
func Safe(name string) bool {
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`\:`, r) })
}

// Escaped is a path as it stands in a URL: its slashes stay.
func Escaped(name string) string {
	segments := strings.Split(name, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// Copy copies the content of a file, which comes under ctx, to w. More than limit bytes are ErrUnsupported.
func Copy(ctx context.Context, w io.Writer, r io.Reader, name string, limit int64) error {
	n, err := io.Copy(w, io.LimitReader(r, limit+1))
	switch cause := context.Cause(ctx); {
	case err != nil && cause != nil:
		return fmt.Errorf("download %s: %w", name, cause)
	case err != nil:
		return fmt.Errorf("download %s: %w", name, err)
	case n > limit:
		return fmt.Errorf("%w: %s is larger than %d bytes", ErrUnsupported, name, limit)
	}
	return nil
}

const stallTime = time.Minute // without a byte of a file

// Transfer is one that ends when it stands still.
type Transfer struct {
	timer  *time.Timer
	cancel context.CancelFunc
}

// WhileMoving returns a context that ends when a minute passes without a read of the transfer's reader.
func WhileMoving(ctx context.Context) (context.Context, *Transfer) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stallTime, func() { cancel(fmt.Errorf("nothing moved for %v", stallTime)) })
	return ctx, &Transfer{timer, func() { cancel(nil) }}
}

// Stop ends the watch, and the context.
func (t *Transfer) Stop() {
	t.timer.Stop()
	t.cancel()
}

// Reader is r, watched.
func (t *Transfer) Reader(r io.Reader) io.Reader { return &movingReader{r, t.timer} }

type movingReader struct {
	r     io.Reader
	timer *time.Timer
}

func (m *movingReader) Read(p []byte) (int, error) {
	m.timer.Reset(stallTime)
	return m.r.Read(p)
}
