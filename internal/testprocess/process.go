// Package testprocess runs real programs beside a test, and looks after them.
package testprocess

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Process is a program that runs until the test ends.
type Process struct {
	Stderr *Log

	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done
}

// Start runs a program. What it prints is handed to read, line by line, and Start waits until that says that the program is ready; without read it does
// not wait, and what is printed goes to the log. At the end of a test that has failed, the end of the log is shown.
func Start(t *testing.T, cmd *exec.Cmd, read func(line string) (ready bool)) *Process {
	t.Helper()
	p := &Process{Stderr: &Log{}, cmd: cmd, done: make(chan struct{})}
	var out io.Reader
	var err error
	if cmd.Stderr = p.Stderr; read == nil {
		cmd.Stdout = p.Stderr
	} else if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			text := p.Stderr.String()
			t.Logf("end of the log of %s:\n%s", filepath.Base(cmd.Path), text[max(0, len(text)-4000):])
		}
	})
	ready := make(chan struct{})
	go func() {
		defer close(p.done)
		if read != nil {
			waiting := true
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if read(lines.Text()) && waiting {
					waiting = false
					close(ready)
				}
			}
		}
		p.err = cmd.Wait()
	}()
	if read == nil {
		return p
	}
	select {
	case <-ready:
	case <-p.done:
		t.Fatalf("%q ended: %v\n%s", cmd.Args, p.err, p.Stderr)
	case <-time.After(time.Minute):
		t.Fatalf("%q does not get ready\n%s", cmd.Args, p.Stderr)
	}
	return p
}

// Kill is kill -9. It returns when the program has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the program to end, and returns how it did. After a minute it is killed.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(time.Minute):
		p.Kill()
		return errors.New("it had not ended a minute after SIGTERM")
	}
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the program's, as long as it runs.
func (p *Process) PID() int { return p.cmd.Process.Pid }
