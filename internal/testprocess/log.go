package testprocess

import (
	"bytes"
	"sync"
)

// Log keeps what a process says while it runs.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write takes what the process says.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all of it up to now.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
