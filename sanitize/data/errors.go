package data

import "errors"

// The kinds of failure; test with errors.Is.
var (
	ErrFormat  = errors.New("unsupported format")                  // no known dataset or image format
	ErrCorrupt = errors.New("damaged data")                        // truncated, unreadable or inconsistent
	ErrLimit   = errors.New("limit exceeded")                      // larger than this package agrees to read
	ErrMixed   = errors.New("images differ")                       // in size or colour, where none was asked for
	ErrClasses = errors.New("unsuitable classes")                  // fewer than two, or not those of the other part
	ErrNoSplit = errors.New("the dataset has no held-out part")    // OpenSplit found training images alone
	ErrOption  = errors.New("unsuitable option")                   // the caller's settings do not fit the dataset
	ErrClosed  = errors.New("the feeder is closed")                // Next after Close
	errFound   = errors.New("internal: everything wanted is here") // ends a pass over an archive early
)

// Error says which dataset failed, and which of its entries where there is one.
type Error struct {
	Path  string // the dataset
	Entry string // file within it; "" when the whole is meant
	Err   error
}

func (e *Error) Error() string {
	if e.Entry == "" {
		return "dataset " + e.Path + ": " + e.Err.Error()
	}
	return "dataset " + e.Path + ": " + e.Entry + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
