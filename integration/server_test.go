package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"grindstone/internal/testprocess"
)

// server is the real program, serving as a process of its own.
type server struct {
	*testing.T
	*testprocess.Process
	address, dir string
	greeting     string // standard output up to and with the last line
}

// startServer runs `grindstone serve` on a free port and a fresh folder, with more arguments, until the test ends.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	return startServerIn(t, t.TempDir(), args...)
}

// startServerIn is startServer on a folder that another server may have used.
func startServerIn(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := &server{T: t, dir: dir}
	s.Process = testprocess.Start(t, exec.Command(binary(t), append([]string{"serve", "--listen", "127.0.0.1:0", "--dir", dir}, args...)...), func(line string) bool {
		s.greeting += line + "\n"
		if _, address, ok := strings.Cut(line, "listens on http"); ok {
			_, s.address, _ = strings.Cut(address, "://")
		}
		return strings.Contains(line, "/api/v1/admissions") // the last line
	})
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

// children lists the processes that the server started and that still run, with their command lines.
func (s *server) children() map[int]string {
	s.Helper()
	return childrenOf(s.T, s.PID())
}

func childrenOf(t *testing.T, parent int) map[int]string {
	t.Helper()
	found := map[int]string{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range stats {
		pid, _ := strconv.Atoi(path.Base(path.Dir(stat)))
		if parentOf(pid) == parent {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			found[pid] = strings.ReplaceAll(string(line), "\x00", " ")
		}
	}
	return found
}

// parentOf reads the process's parent, 0 when it is gone or a zombie.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // after the command's name
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[0] == "Z" {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// peakMemory is the most that the server has held in memory so far, in bytes.
func (s *server) peakMemory() int64 {
	s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		s.Skipf("no process status here: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				s.Fatal(err)
			}
			return kib << 10
		}
	}
	s.Fatalf("no VmHWM in\n%s", status)
	return 0
}

// grindstone runs another command of the program.
func (s *server) grindstone(args ...string) (string, error) {
	s.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(s.Context(), binary(s.T), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
