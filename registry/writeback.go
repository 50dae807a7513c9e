package registry

import (
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
)

// writtenBody has an upload go to disk while it comes in. Quarantine makes a package durable before its manifest is answered: of a large model little is left to be
// written then. It changes nothing of what is on disk when.
type writtenBody struct {
	io.ReadCloser
	dir   string            // of the store's unfinished uploads; olareg does not tell which of them this is
	write func(path string) // begins to write a file
	read  int64             // bytes since that was done last
	busy  atomic.Bool
}

const (
	uploadsFolder  = "_uploads" // olareg's, in a repository's
	writtenEach    = 16 << 20   // bytes that come in between
	writtenUploads = 64         // of more at a time in one repository, most would be begun in vain
)

func (b *writtenBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.read += int64(n); b.read >= writtenEach && b.busy.CompareAndSwap(false, true) {
		b.read = 0
		go func() { // a disk that is busy may hold it up
			defer b.busy.Store(false)
			uploads, _ := os.ReadDir(b.dir)
			if len(uploads) > writtenUploads {
				return
			}
			for _, u := range uploads {
				b.write(filepath.Join(b.dir, u.Name()))
			}
		}()
	}
	return n, err
}
