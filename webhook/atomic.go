package webhook

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

const tempPrefix = ".tmp-"

// writeFileAtomic replaces the file at path: after a crash it holds either the old or the new bytes. The bytes and the name are
// on stable storage when it returns.
func writeFileAtomic(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncPath(filepath.Dir(path))
	}
	return err
}

// persistentID reads the UUID in a file, which is made with a new one where there is none.
func persistentID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if id, perr := uuid.Parse(strings.TrimSpace(string(data))); err == nil && perr == nil {
		return id.String(), nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := uuid.NewString()
	return id, writeFileAtomic(path, []byte(id+"\n"))
}

// syncPath brings a file's or a directory's content to stable storage.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
