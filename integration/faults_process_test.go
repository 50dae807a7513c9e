package integration

import (
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"grindstone/internal/testprocess"
)

// process is a program under a supervisor, which starts it again whenever it ends, as systemd and Kubernetes do.
type process struct {
	name    string
	command func() *exec.Cmd
	log     testprocess.Log

	mu        sync.Mutex
	cmd       *exec.Cmd // nil while it does not run
	notBefore time.Time // when it is started again
	killed    bool      // its end is the test's doing
	stopping  bool
	starts    int
	unplanned []string // how it ended of its own
	ended     chan struct{}
}

// supervise starts a program, and ends it with the test.
func supervise(t *testing.T, name string, command func() *exec.Cmd) *process {
	p := &process{name: name, command: command, ended: make(chan struct{})}
	go p.run()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			text := requests.ReplaceAllString(p.log.String(), "")
			t.Logf("end of the log of %s:\n%s", name, text[max(0, len(text)-6000):])
		}
	})
	return p
}

// requests are the lines of the log that tell of requests: too many to read.
var requests = regexp.MustCompile(`(?m)^.* msg=request .*\n`)

func (p *process) run() {
	runtime.LockOSThread() // the kernel ends the children of a thread with it: none outlives the test, however that ends
	defer close(p.ended)
	for {
		p.mu.Lock()
		for wait := time.Until(p.notBefore); wait > 0 && !p.stopping; wait = time.Until(p.notBefore) {
			p.mu.Unlock()
			time.Sleep(min(wait, 50*time.Millisecond))
			p.mu.Lock()
		}
		if p.stopping {
			p.mu.Unlock()
			return
		}
		cmd := p.command()
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &p.log, &p.log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		if err == nil {
			p.cmd, p.killed = cmd, false
			p.starts++
			p.mu.Unlock()
			err = cmd.Wait()
			p.mu.Lock()
		}
		p.cmd = nil
		if !p.killed && !p.stopping {
			text := strings.TrimSpace(p.log.String())
			p.unplanned = append(p.unplanned, fmt.Sprintf("%v: %s", err, text[strings.LastIndexByte(text, '\n')+1:]))
			p.notBefore = time.Now().Add(300 * time.Millisecond)
		}
		p.mu.Unlock()
	}
}

// kill is kill -9; the supervisor starts the program again after a while. False: it does not run now.
func (p *process) kill(down time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return false
	}
	p.killed, p.notBefore = true, time.Now().Add(down)
	return p.cmd.Process.Kill() == nil
}

// pid is that of the running program, or 0.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// stop ends the program by SIGTERM, or, after a minute, by SIGKILL, and does not start it again.
func (p *process) stop() {
	p.mu.Lock()
	p.stopping = true
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	p.mu.Unlock()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.kill(0)
		<-p.ended
	}
}

// exits says how often the program was started, and how it ended of its own.
func (p *process) exits() (starts int, unplanned []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts, append([]string{}, p.unplanned...)
}
