package webhook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode"

	"grindstone/internal/regular"
	"grindstone/sanitize"
)

const maxLine = 64 << 10 // bytes of one progress line

// progressLines reads the sanitizer's standard output: one sanitize.Progress as JSON per line. The process is not trusted: lines
// that are too long or are no progress are dropped.
type progressLines struct {
	report  func(sanitize.Progress)
	failure string // the error of the line with phase "failed"
	line    []byte
	long    bool // the present line is over maxLine
}

func (w *progressLines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		part, rest, end := bytes.Cut(p, []byte("\n"))
		if w.long = w.long || len(w.line)+len(part) > maxLine; w.long {
			w.line = w.line[:0]
		} else {
			w.line = append(w.line, part...)
		}
		if !end {
			return n, nil
		}
		w.finish()
		p = rest
	}
}

func (w *progressLines) finish() {
	defer func() { w.line, w.long = w.line[:0], false }()
	p, ok := readProgress(w.line)
	if !ok {
		return
	}
	if p.Phase == "failed" {
		w.failure = p.Error
	}
	w.report(p)
}

// readProgress reads a line of a sanitizer, which may have come by a worker: neither is trusted.
func readProgress(line []byte) (p sanitize.Progress, ok bool) {
	if len(line) > maxLine || json.Unmarshal(line, &p) != nil || p.Phase == "" {
		return p, false
	}
	p.Phase, p.Message, p.Error = printable(p.Phase, 40), printable(p.Message, 500), printable(p.Error, 1000)
	return p, true
}

// ends keeps the first and the last bytes written to it, limit of each: a crash says why at first, a command at last.
type ends struct {
	limit       int
	first, last []byte
}

func (e *ends) Write(p []byte) (int, error) {
	n := min(len(p), e.limit-len(e.first))
	e.first = append(e.first, p[:n]...)
	e.last = append(e.last, p[n:]...)
	if over := len(e.last) - e.limit; over > 0 {
		e.last = append(e.last[:0], e.last[over:]...)
	}
	return len(p), nil
}

func (e *ends) String() string { return string(e.first) + string(e.last) }

// printable makes a text from an untrusted process fit for logs and messages: one line, no control characters, at most n runes.
func printable(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > n {
		s = string(runes[:n]) + "…"
	}
	return s
}

// syncedSHA256 reads a file that a sanitizer wrote, which is on stable storage then.
func syncedSHA256(path string, most int64) (sum string, size int64, err error) {
	f, err := regular.Open(path, most)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, io.LimitReader(f, most)) // it may grow meanwhile
	return hex.EncodeToString(h.Sum(nil)), size, errors.Join(err, f.Sync())
}
