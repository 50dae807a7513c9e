package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// process is a registry, a proxy or a gateway.
type process struct {
	host string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start runs a program and waits until it answers at a host and port.
func start(host, program string, args ...string) (*process, error) {
	return startAt("tcp", host, program, args...)
}

// startAt runs a program and waits until it answers at an address of a network.
func startAt(network, address, program string, args ...string) (*process, error) {
	p := &process{host: address, cmd: exec.Command(program, args...)}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	p.cmd.Stderr, p.cmd.Env = &p.log, append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 600 {
		if answer, err := client.Get("http://localhost/v2/"); err == nil {
			answer.Body.Close()
			return p, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("%s does not answer:\n%s", program, p.log.String())
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	_ = p.cmd.Wait()
}

// processor is the time that a process has had, in seconds (proc(5), stat: utime and stime in ticks of 10 ms).
func (p *process) processor() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // after the command's name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("no utime and stime")
	}
	user, uerr := strconv.ParseFloat(fields[11], 64)
	system, serr := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100, errors.Join(uerr, serr)
}

// memory is the resident set of a process now and its peak, in bytes.
func (p *process) memory() (now, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			now = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	if now == 0 || peak == 0 {
		return 0, 0, errors.New("no VmRSS or VmHWM")
	}
	return now, peak, nil
}

// resetPeak makes the peak count from now on (proc(5), clear_refs).
func (p *process) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)
}
