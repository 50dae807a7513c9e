package registry

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestUploadsAreWrittenMeanwhile reads the body of an upload and sees that the files of the unfinished uploads are begun to be written each 16 MiB, while the body is as it was.
func TestUploadsAreWrittenMeanwhile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "upload.1")
	if err := os.WriteFile(file, []byte("begun"), 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan string)
	sent := bytes.Repeat([]byte("weights!"), writtenEach/8*5/2)
	body := &writtenBody{ReadCloser: io.NopCloser(bytes.NewReader(sent)), dir: dir, write: func(path string) {
		writeBack(path)
		written <- path
	}}
	got := bytes.NewBuffer(make([]byte, 0, len(sent)))
	for _, part := range []int64{writtenEach - 1, 1, writtenEach, int64(len(sent)) - 2*writtenEach} {
		if _, err := io.CopyN(got, body, part); err != nil {
			t.Fatal(err)
		}
		if got.Len()%writtenEach != 0 {
			continue
		}
		select {
		case path := <-written:
			if path != file {
				t.Errorf("%s is written, not %s", path, file)
			}
		case <-time.After(time.Minute):
			t.Fatalf("nothing is written after %d bytes", got.Len())
		}
		for body.busy.Load() { // it is through in a moment
			time.Sleep(time.Millisecond)
		}
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Error("the body is another one")
	}
	if kept, err := os.ReadFile(file); err != nil || string(kept) != "begun" {
		t.Errorf("the file holds %q, %v", kept, err)
	}
	select {
	case <-written:
		t.Error("it is written more often than each 16 MiB")
	default:
	}
}
