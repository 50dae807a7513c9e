package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is the real program, serving as a process of its own.
type server struct {
	*testing.T
	address, dir string
	greeting     string // standard output up to and with the last line
	log          *bytes.Buffer
	cmd          *exec.Cmd
	ended        chan error
}

// startServer runs `grindstone serve` on a free port and a fresh folder, with more arguments, until the test ends.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	return startServerIn(t, t.TempDir(), args...)
}

// startServerIn is startServer on a folder that another server may have used.
func startServerIn(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := &server{T: t, dir: dir, log: &bytes.Buffer{}, ended: make(chan error, 1)}
	s.cmd = exec.Command(binary(t), append([]string{"serve", "--listen", "127.0.0.1:0", "--dir", dir}, args...)...)
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	greeted := make(chan bool)
	go func() {
		defer func() { s.ended <- s.cmd.Wait() }()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.greeting += lines.Text() + "\n"
			if _, address, ok := strings.Cut(lines.Text(), "listens on http"); ok {
				_, s.address, _ = strings.Cut(address, "://")
			}
			if strings.Contains(lines.Text(), "/api/v1/admissions") { // the last line
				close(greeted)
				return
			}
		}
	}()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			text := s.log.String()
			t.Logf("end of the server's log:\n%s", text[max(0, len(text)-4000):])
		}
	})
	select {
	case <-greeted:
	case err := <-s.ended:
		s.ended <- err
		t.Fatalf("the server ended: %v\n%s", err, s.log)
	case <-time.After(60 * time.Second):
		t.Fatal("the server does not listen")
	}
	return s
}

// stop asks the server to end and returns how it did.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	err := <-s.ended
	s.ended <- err
	return err
}

// kill is kill -9.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	err := <-s.ended
	s.ended <- err
}

// children lists the processes that the server started and that still run, with their command lines.
func (s *server) children() map[int]string {
	s.Helper()
	return childrenOf(s.T, s.cmd.Process.Pid)
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
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
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
