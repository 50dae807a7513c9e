package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// system is where the system's libraries are, and what they and their loader read of the machine. /etc is not: keys and passwords are there. Nor are the folders of
// other processes in /proc: who runs as root may read environments there.
var system = []string{
	"/lib", "/lib32", "/lib64", "/usr", "/nix/store", "/gnu/store", "/etc/ld.so.cache",
	"/sys", "/proc/self", "/proc/sys", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/vmstat", "/proc/version", "/proc/devices", "/proc/filesystems", "/proc/driver",
}

// devices that everybody may use.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// Available answers what would confine a process here: Landlock and the version of its interface. The error is ErrUnavailable, with a reason.
func Available() (name string, err error) {
	version, err := ll.LandlockGetABIVersion()
	if err != nil || version < 1 {
		return "", fmt.Errorf("%w: the kernel has no Landlock (Linux 5.13 and later, if it was built with it and started with it in the list of security modules)", ErrUnavailable)
	}
	return fmt.Sprintf("landlock %d", version), nil
}

// enter confines the process. Before version 4 of the interface TCP is not restricted, before version 6 signals are not.
func enter(files Files) error {
	if err := pin(); err != nil {
		return err
	}
	rules := []landlock.Rule{landlock.RWFiles(devices...).IgnoreIfMissing()}
	for _, path := range slices.Concat(system, filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")), files.Read) {
		info, err := os.Stat(path)
		switch {
		case path == "" || errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		case info.IsDir():
			rules = append(rules, landlock.RODirs(path))
		default:
			rules = append(rules, landlock.ROFiles(path))
		}
	}
	rules = append(rules, landlock.RWDirs(files.Write...).IgnoreIfMissing())
	return landlock.V7.BestEffort().Restrict(rules...)
}

// pin keeps those of /proc open as long as the process lives. A rule is about an inode, and when the kernel wants memory it forgets those of /proc that nobody has open,
// to make others when they are asked for, which the rule knows nothing of: the process could not read of itself any more, and would die on its way in, where the C
// library's threads are confined by what /proc/self/task lists.
func pin() error {
	for _, path := range append(slices.Clone(system), "/proc/self/task") {
		if !strings.HasPrefix(path, "/proc/") {
			continue
		}
		if _, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
	return nil
}
