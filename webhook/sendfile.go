package webhook

import (
	"io"
	"net/http"

	"github.com/labstack/echo/v4"
)

// sendFiles is echo.WrapHandler for a handler that sends files. Without it the connection's io.ReaderFrom, by which net/http has the kernel send a
// file (sendfile(2)), is hidden behind echo's Response, and every byte of a model is copied to the process and back.
func sendFiles(h http.Handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		h.ServeHTTP(fileResponse{c.Response()}, c.Request())
		return nil
	}
}

// fileResponse is a Response with io.ReaderFrom.
type fileResponse struct{ *echo.Response }

// ReadFrom implements io.ReaderFrom.
func (f fileResponse) ReadFrom(r io.Reader) (n int64, err error) {
	if !f.Committed {
		f.WriteHeader(http.StatusOK)
	}
	if outer, ok := f.Writer.(*echo.Response); ok { // echo.WrapMiddleware puts one into another
		n, err = fileResponse{outer}.ReadFrom(r)
	} else {
		n, err = io.Copy(f.Writer, r)
	}
	f.Size += n
	return n, err
}
