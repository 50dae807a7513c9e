package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

// Errors that callers of the Go API tell apart with errors.Is.
var (
	ErrNotFound = errors.New("not found") // no such package, or one that was denied
	ErrReplaced = errors.New("the file that is to take another's place has changed")
	ErrPackage  = errors.New("package cannot be processed") // the manifest is malformed or of an unsupported shape
	ErrTwin     = fmt.Errorf("%w: its layers are not those that its twin was pushed with, or what was made of these is gone", ErrPackage)
	ErrDigest   = errors.New("content does not match its digest")
	ErrLocked   = errors.New("directory is in use by another process")
)

// Error is returned by the Go API: what was done to which reference, and why it failed.
type Error struct {
	Op         string // "fetch", "discard", "release", "check", "attach", "tag"
	Repository string
	Reference  string // tag or digest
	Err        error
}

func (e *Error) Error() string {
	return fmt.Sprintf("registry: %s %s@%s: %v", e.Op, e.Repository, e.Reference, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// IndexError says that an index cannot be released, because a manifest that it names is not.
type IndexError struct{ Manifest string } // its digest

func (e *IndexError) Error() string {
	return "the manifest " + e.Manifest + " of this index is not released"
}

func (e *IndexError) Unwrap() error { return ErrPackage }

// code is an error code of the OCI distribution specification, section "Error Codes", or UNAVAILABLE, which
// registries use with 503 although the specification does not list it.
type code string

const (
	codeBlobUnknown         code = "BLOB_UNKNOWN"
	codeBlobUploadUnknown   code = "BLOB_UPLOAD_UNKNOWN"
	codeDenied              code = "DENIED"
	codeDigestInvalid       code = "DIGEST_INVALID"
	codeManifestBlobUnknown code = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     code = "MANIFEST_INVALID"
	codeManifestUnknown     code = "MANIFEST_UNKNOWN"
	codeNameInvalid         code = "NAME_INVALID"
	codeNameUnknown         code = "NAME_UNKNOWN"
	codeSizeInvalid         code = "SIZE_INVALID"
	codeTagInvalid          code = "TAG_INVALID"
	codeTooManyRequests     code = "TOOMANYREQUESTS"
	codeUnauthorized        code = "UNAUTHORIZED"
	codeUnavailable         code = "UNAVAILABLE"
	codeUnknown             code = "UNKNOWN"
	codeUnsupported         code = "UNSUPPORTED"
)

// clientError is what a client is answered. The cause is logged and never sent.
type clientError struct {
	status   int
	code     code
	messages []string // one OCI error each
	header   http.Header
	cause    error
}

func (e *clientError) Error() string {
	s := fmt.Sprintf("%d %s: %s", e.status, e.code, strings.Join(e.messages, "; "))
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

func (e *clientError) Unwrap() error { return e.cause }

func refuse(status int, c code, format string, args ...any) *clientError {
	return &clientError{status: status, code: c, messages: []string{fmt.Sprintf(format, args...)}}
}

func (e *clientError) because(cause error) *clientError {
	e.cause = cause
	return e
}

// writeError is the one place where the gateway answers an error. What is not a clientError becomes a bare 500.
func writeError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	if q := (*quoted)(nil); errors.As(err, &q) {
		q.write(w)
		return
	}
	var e *clientError
	if !errors.As(err, &e) {
		e = refuse(http.StatusInternalServerError, codeUnknown, "internal error; the log of the registry has the cause").because(err)
	}
	level := slog.LevelDebug
	if e.status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	log.Log(r.Context(), level, "request refused", "method", r.Method, "path", r.URL.Path, "status", e.status, "code", e.code,
		"message", strings.Join(e.messages, "; "), "cause", e.cause)

	type item struct {
		Code    code   `json:"code"`
		Message string `json:"message"`
	}
	var body struct {
		Errors []item `json:"errors"`
	}
	for _, m := range e.messages {
		body.Errors = append(body.Errors, item{e.code, m})
	}
	if r.Method == http.MethodHead && e.status != http.StatusNotFound {
		// The answer to HEAD has no body; clients print this header instead. That something is not there they ask before each upload, and are
		// told no more than by any other registry.
		w.Header().Set("Warning", warning(strings.Join(e.messages, "; ")))
	}
	for name, values := range e.header {
		w.Header()[name] = values
	}
	if e.status == http.StatusServiceUnavailable || e.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(body) // a client that went away cannot be told
}

func writeJSON(w http.ResponseWriter, v any) error {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	_ = json.NewEncoder(w).Encode(v) // as above
	return nil
}

// warning formats a Warning header as the OCI distribution specification wants it, section "Warnings".
func warning(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, text)
	const limit = 2000 // the specification allows 4096 bytes; escaping may double the length
	if len(text) > limit {
		text = text[:limit]
	}
	return `299 - "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}
