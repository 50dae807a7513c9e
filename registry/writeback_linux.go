package registry

import (
	"os"

	"golang.org/x/sys/unix"
)

// writeBack has the kernel begin to write what it holds of a file in memory, and does not wait for the end (sync_file_range(2)). Nothing may rely on it.
func writeBack(path string) {
	f, err := os.Open(path)
	if err != nil { // the upload has ended
		return
	}
	defer f.Close()
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) //nolint:gosec // a file descriptor is small
}
