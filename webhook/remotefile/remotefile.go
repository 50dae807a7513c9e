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
	switch {
	case err != nil:
		return fmt.Errorf("download %s: %w", name, Why(ctx, err))
	case n > limit:
		return fmt.Errorf("%w: %s is larger than %d bytes", ErrUnsupported, name, limit)
	}
	return nil
}

const (
	stallTime  = time.Minute      // without a byte of a file
	answerTime = 15 * time.Minute // for a server to bring a file from where it keeps it before it sends it, or there before it answers
)

// Transfer is one that ends when it stands still.
type Transfer struct {
	timer  *time.Timer
	cancel context.CancelFunc
}

var errStalled = errors.New("nothing moved any more")

// WhileMoving returns a context that ends when a minute passes without a read of the transfer's reader.
func WhileMoving(ctx context.Context) (context.Context, *Transfer) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stallTime, func() { cancel(errStalled) })
	return ctx, &Transfer{timer, func() { cancel(nil) }}
}

// Patiently gives the server time for what nothing is seen of here, until the next read.
func (t *Transfer) Patiently() { t.timer.Reset(answerTime) }

// Why is the error of what was done under a context of WhileMoving: that nothing moved, where that ended it.
func Why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// Stop ends the watch, and the context.
func (t *Transfer) Stop() {
	t.timer.Stop()
	t.cancel()
}

// Reader is r, watched.
func (t *Transfer) Reader(r io.Reader) io.Reader { return &movingReader{r, t} }

// Sending is r, watched, which is sent. A server may answer long after it has all of it.
func (t *Transfer) Sending(r io.Reader) io.Reader { return &sentReader{movingReader{r, t}} }

type movingReader struct {
	r io.Reader
	t *Transfer
}

func (m *movingReader) Read(p []byte) (int, error) {
	m.t.timer.Reset(stallTime)
	return m.r.Read(p)
}

type sentReader struct{ movingReader }

func (s *sentReader) Read(p []byte) (int, error) {
	n, err := s.movingReader.Read(p)
	if errors.Is(err, io.EOF) {
		s.t.Patiently()
	}
	return n, err
}
