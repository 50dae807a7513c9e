package demo

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// server is a running `grindstone serve`.
type server struct {
	Address string // host:port
	cmd     *exec.Cmd
	log     *os.File
	done    chan struct{} // closed when the process has ended
}

// serve starts the real server as a process of its own.
func (s *story) serve(ctx context.Context) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	config := filepath.Join(s.Dir, "grindstone.yaml")
	steps := s.Steps
	if steps == 0 && s.outcome.Images == "generated" {
		steps = DefaultSteps
	}
	text := fmt.Sprintf("listen: %s\ndir: %q\ndatasets:\n  default: %q\ntrainer:\n  steps: %d\nsanitizer:\n  provider: %s\n",
		address, filepath.Join(s.Dir, "state"), s.clean, steps, s.Provider)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.Dir, "server.log"))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.Program, // ended by stop, gracefully
		"serve", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		log.Close()
		return err
	}
	s.server = &server{Address: address, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(s.server.done)
		_ = cmd.Wait() // how it ended is in the process state
	}()
	if err := s.server.ready(ctx); err != nil {
		return err
	}
	s.Say("The registry listens on %s; every push to it is intercepted.", address)
	return nil
}

// ready waits until the server answers that it is.
func (v *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.Address+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-v.done:
			return fmt.Errorf("the server ended: %v\n%s", v.cmd.ProcessState, v.tail())
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w\n%s", ctx.Err(), v.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tail is the end of the server's log.
func (v *server) tail() []byte {
	b, _ := os.ReadFile(v.log.Name())
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-10):], []byte("\n"))
}

// stop asks the server to end, and makes it after ten seconds.
func (v *server) stop() {
	defer v.log.Close()
	_ = v.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-v.done:
	case <-time.After(10 * time.Second):
		_ = v.cmd.Process.Kill()
		<-v.done
	}
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
