package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
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
