// Package sandbox confines this process, for good, to the files that its work needs: what reads a model of strangers shall not read a signing key, even if the
// model takes over the native code that runs it.
//
// It is made of Landlock (https://docs.kernel.org/userspace-api/landlock.html), which asks for no privileges. On other systems than Linux, and on
// kernels before 5.13, there is none.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// The modes say whether a process is confined.
const (
	Auto    = "auto"    // as far as this machine can
	Require = "require" // it is an error if this machine cannot
	Off     = "off"
)

// Modes are all modes.
var Modes = []string{Auto, Require, Off}

// Files are what a confined process may use besides the system's libraries and what the kernel tells of the machine, which it may read. Names of what does not exist are left out.
type Files struct {
	Read    []string // files, and folders with all that is in them
	Trusted []string // the same, and the files that symbolic links in them point to
	Write   []string // folders, to read and write in
}

// readable lists what may be read, links followed.
func (f Files) readable() ([]string, error) {
	all := slices.Concat(f.Read, f.Trusted)
	for _, root := range f.Trusted {
		root, err := filepath.EvalSymlinks(root)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Type()&fs.ModeSymlink == 0 {
				return err
			}
			if target, err := filepath.EvalSymlinks(path); err == nil { // whoever reads it will say what is wrong with a link that leads nowhere
				all = append(all, target)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ErrUnavailable says that this machine has no sandbox.
var ErrUnavailable = errors.New("this machine has no sandbox")

// Enter confines the process with all its threads, and what it starts. It answers what confines it, such as "landlock 7", or "" where nothing does.
func Enter(mode string, files Files) (name string, err error) {
	if mode == Off {
		return "", nil
	}
	if name, err = Available(); err != nil {
		if mode == Require {
			return "", err
		}
		return "", nil
	}
	if files.Read, err = files.readable(); err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	if err := enter(files); err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	return name, nil
}
