package testregistry

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"grindstone/internal/testprocess"
)

// MLflow is a tracking server from PyPI with a model registry, as a process.
type MLflow struct {
	URL string

	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	log  testprocess.Log
	env  []string
	done chan struct{}
}

// environment is the folder of the Python environment that `make mlflow` installs; the test is skipped where it is not there.
func environment(t *testing.T) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "..", "..", ".cache", "mlflow")
	if _, err := os.Stat(filepath.Join(dir, "bin", "mlflow")); err != nil {
		t.Skip("MLflow is not installed: `make mlflow` does it")
	}
	return dir
}

// StartMLflow runs MLflow on an empty folder until the test ends. Its webhooks may go to this machine.
func StartMLflow(t *testing.T) *MLflow {
	t.Helper()
	environment(t)
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	m := &MLflow{URL: "http://" + FreePort(t), t: t, dir: t.TempDir(), env: append(os.Environ(),
		"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY="+base64.URLEncoding.EncodeToString(key), "MLFLOW_WEBHOOK_CACHE_TTL=0", "MLFLOW_DISABLE_TELEMETRY=true",
		"MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "GIT_PYTHON_REFRESH=quiet",
	)}
	m.Start()
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			text := m.log.String()
			t.Logf("end of MLflow's log:\n%s", text[max(0, len(text)-4000):])
		}
	})
	return m
}

// Start starts it, again on the same folder and port.
func (m *MLflow) Start() {
	m.t.Helper()
	m.cmd = exec.Command(filepath.Join(environment(m.t), "bin", "mlflow"), "server", "--host", "127.0.0.1", "--port", m.URL[strings.LastIndex(m.URL, ":")+1:], "--workers", "1",
		"--backend-store-uri", "sqlite:///"+filepath.Join(m.dir, "mlflow.db"), "--artifacts-destination", filepath.Join(m.dir, "artifacts"), "--serve-artifacts")
	m.cmd.Env, m.cmd.Stdout, m.cmd.Stderr, m.cmd.Dir = m.env, &m.log, &m.log, m.dir
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it starts others
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(m.cmd, m.done)
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if answer, err := http.Get(m.URL + "/health"); err == nil {
			answer.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("MLflow does not answer:\n%s", m.log.String())
		}
	}
}

// Kill is kill -9.
func (m *MLflow) Kill() {
	if err := syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		m.t.Error(err)
	}
	<-m.done
}

// Artifacts is the folder that it keeps files in.
func (m *MLflow) Artifacts() string { return filepath.Join(m.dir, "artifacts") }

// Client runs a program of this repository that uses MLflow's own client, and returns what it printed last.
func (m *MLflow) Client(script string, args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), filepath.Join(environment(m.t), "bin", "python"), append([]string{script}, args...)...)
	cmd.Env = append(m.env, "MLFLOW_TRACKING_URI="+m.URL)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%v: %v\n%s", args, err, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
