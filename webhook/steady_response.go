package webhook

import (
	"io"
	"net/http"
	"os"
	"time"
)

// steadyResponse is a response that must be taken: its connection is cut when a part of it is not taken in time. Whoever reads nothing would
// otherwise hold a connection and a file for good.
type steadyResponse struct {
	http.ResponseWriter
	connection *http.ResponseController
	patience   time.Duration
}

const responsePart = 1 << 20 // bytes

// inTime writes in time. In between a response may take as long as it likes: an upload, a stream of events, a registry behind this one.
func (s *steadyResponse) inTime(write func()) {
	s.hurry()
	write()
	_ = s.connection.SetWriteDeadline(time.Time{}) // of HTTP/2, a response ends when its deadline passes, also while nobody writes
}

func (s *steadyResponse) hurry() {
	_ = s.connection.SetWriteDeadline(time.Now().Add(s.patience)) // where that is not supported, as in tests, the response is not limited
}

// Unwrap is for http.ResponseController.
func (s *steadyResponse) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *steadyResponse) WriteHeader(status int) {
	s.inTime(func() { s.ResponseWriter.WriteHeader(status) })
}

// FlushError implements what http.ResponseController looks for.
func (s *steadyResponse) FlushError() (err error) {
	s.inTime(func() { err = s.connection.Flush() })
	return err
}

func (s *steadyResponse) Write(p []byte) (written int, err error) {
	for {
		n := 0
		s.inTime(func() { n, err = s.ResponseWriter.Write(p[:min(len(p), responsePart)]) })
		written, p = written+n, p[n:]
		if len(p) == 0 || err != nil {
			return written, err
		}
	}
}

// ReadFrom has the connection send files by itself (sendFiles), part by part.
func (s *steadyResponse) ReadFrom(r io.Reader) (written int64, err error) {
	to, sends := s.ResponseWriter.(io.ReaderFrom)
	file, ok := r.(*io.LimitedReader)
	if !ok {
		file = &io.LimitedReader{R: r, N: 1<<63 - 1}
	}
	if _, is := file.R.(*os.File); !is || !sends {
		return io.Copy(struct{ io.Writer }{s}, r)
	}
	for file.N > 0 && err == nil {
		part, n := &io.LimitedReader{R: file.R, N: min(file.N, responsePart)}, int64(0)
		s.inTime(func() { n, err = to.ReadFrom(part) })
		written, file.N = written+n, file.N-n
		if part.N > 0 { // the file has ended
			break
		}
	}
	return written, err
}
