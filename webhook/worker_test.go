package webhook

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"grindstone/internal/testprocess"
	"grindstone/policy"
	"grindstone/sanitize"
	"grindstone/webhook/queue"
)

// testWorker is the real worker as a process.
func testWorker(args []string) int {
	flags := flag.NewFlagSet("worker", flag.ExitOnError)
	dir := flags.String("dir", "", "")
	url := flags.String("queue", "", "")
	behaviour := flags.String("sanitizer", "ok", "")
	data := flags.String("data", "default", "")
	labels := flags.String("labels", "", "")
	_ = flags.Parse(args)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	q, err := queue.Open(ctx, queue.Config{URL: *url, Heartbeat: testHeartbeat, Log: log})
	if err != nil {
		fmt.Fprintln(os.Stderr, "test worker:", err)
		return 1
	}
	defer q.Close()
	w := NewWorker(q, *dir, map[string]string{*data: "/dev/null"}, strings.Fields(*labels), SanitizerConfig{Command: sanitizerCommand(*behaviour), Timeout: time.Minute}, log)
	fmt.Println("READY")
	if err := w.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "test worker:", err)
		return 1
	}
	return 0
}

// testQueue is a NATS server as a process of its own.
func testQueue(args []string) int {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	q, err := queue.Open(ctx, queue.Config{Dir: args[0], Listen: args[1], Heartbeat: testHeartbeat, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, "test queue:", err)
		return 1
	}
	fmt.Println("READY")
	<-ctx.Done()
	q.Close()
	return 0
}

const testHeartbeat = 2 * time.Second

// process is the test binary as another program.
type process struct {
	*testing.T
	*testprocess.Process
}

// startProcess runs the test binary as another program until the test ends, and waits until it is ready.
func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	return &process{t, testprocess.Start(t, exec.Command(os.Args[0], args...), func(line string) bool { return line == "READY" })}
}

// awaitChild waits until the process has started another.
func (p *process) awaitChild() {
	p.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		children := ""
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID())) // of every thread
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			children += string(text)
		}
		if strings.TrimSpace(children) != "" {
			return
		}
		if time.Now().After(deadline) {
			p.Fatal("it starts no process")
		}
	}
}

// stop is a graceful stop.
func (p *process) stop() {
	p.Helper()
	if err := p.Stop(); err != nil {
		p.Errorf("it ends with %v", err)
	}
}

func startWorker(t *testing.T, url, behaviour string, args ...string) *process {
	t.Helper()
	return startProcess(t, append([]string{"worker", "-queue", url, "-dir", t.TempDir(), "-sanitizer", behaviour}, args...)...)
}

// freePort is an address of loopback that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// sharedQueue starts a server that leaves the work to others, with its queue inside, and returns the queue's URL.
func sharedQueue(t *testing.T, dir string) (s *serverProcess, url string) {
	t.Helper()
	at := freePort(t)
	return startServer(t, dir, "-queue-listen", at, "-workers", "0"), "nats://" + at
}

// checkQueueEmpty waits until nothing is left of what was done.
func checkQueueEmpty(t *testing.T, url string) {
	t.Helper()
	q, err := queue.Open(t.Context(), queue.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if left, err = q.Left(t.Context()); err == nil && len(left) == 0 {
			return
		}
	}
	t.Errorf("left in the queue: %q, %v", left, err)
}

func TestWorkersOfOtherProcesses(t *testing.T) {
	s, url := sharedQueue(t, t.TempDir())
	s.pushModel("models/a", "v1", "a")
	s.pushModel("models/b", "v1", "b") // both wait for a worker
	one, two := startWorker(t, url, "slow-500ms"), startWorker(t, url, "slow-500ms")
	for _, a := range s.settle() {
		s.checkReleased(a.Source.Repository, "v1", strings.TrimPrefix(a.Source.Repository, "models/"), a)
		if a.Attempts != 1 {
			t.Errorf("%d attempts", a.Attempts)
		}
	}
	checkQueueEmpty(t, url)
	// A verdict comes back as one, and can be retried.
	one.stop()
	two.stop()
	bad := startWorker(t, url, "at-chance")
	s.pushModel("models/c", "v1", "c")
	a := s.settle()[0]
	if a.Reason != ReasonAccuracy || !strings.Contains(a.Message, "at chance") {
		t.Errorf("%s %s", a.Reason, a.Message)
	}
	checkQueueEmpty(t, url)
	bad.stop()
	startWorker(t, url, "ok")
	s.post("/api/v1/admissions/"+a.ID+"/retry", "")
	s.settle()
	s.checkReleased("models/c", "v1", "c", s.admission(a.ID))
}

// TestOwnWorkersBesideOthers: a server whose queue others may join does work itself, and when it is killed does it again.
func TestOwnWorkersBesideOthers(t *testing.T) {
	dir, at := t.TempDir(), freePort(t)
	s := startServer(t, dir, "-queue-listen", at, "-stop", "sanitizing done")
	s.pushModel("models/a", "v1", "a")
	s.reach() // the result is in the queue, its files in the folder of this process
	s.Kill()
	s = startServer(t, dir, "-queue-listen", at)
	a := s.settle()[0]
	s.checkReleased("models/a", "v1", "a", a)
	checkQueueEmpty(t, "nats://"+at)
	s.pushModel("models/b", "v1", "b")
	s.settle()
	s.checkReleased("models/b", "v1", "b", s.admissions("?repository=models/b")[0])
}

// TestKilledWorker loses its job to another after the heartbeat's time; a stopped one gives it back at once.
func TestKilledWorker(t *testing.T) {
	for name, want := range map[string]int{"killed": 2, "stopped": 1} {
		t.Run(name, func(t *testing.T) {
			s, url := sharedQueue(t, t.TempDir())
			first := startWorker(t, url, "hang")
			s.pushModel("models/a", "v1", "a")
			pid := s.sanitizerPID()
			begin := time.Now()
			if name == "killed" {
				first.Kill()
			} else {
				first.stop()
			}
			startWorker(t, url, "ok")
			a := s.settle()[0]
			s.checkReleased("models/a", "v1", "a", a)
			if a.Attempts != want || alive(pid) {
				t.Errorf("%d attempts, want %d; the first sanitizer is alive: %v", a.Attempts, want, alive(pid))
			}
			t.Logf("released %v after the worker was %s", time.Since(begin), name)
			checkQueueEmpty(t, url)
		})
	}
}

// TestKilledServerKeepsTheRun: a worker's run goes on while its server is dead, and is not done again.
func TestKilledServerKeepsTheRun(t *testing.T) {
	dir, at := t.TempDir(), freePort(t)
	startProcess(t, "queue", filepath.Join(t.TempDir(), "queue"), at)
	url := "nats://" + at
	startWorker(t, url, "slow-4s")
	s := startServer(t, dir, "-queue", url, "-workers", "0")
	s.pushModel("models/a", "v1", "a")
	for len(s.admissions("?state=sanitizing")) == 0 {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(time.Second)
	s.Kill()
	s = startServer(t, dir, "-queue", url, "-workers", "0")
	a := s.settle()[0]
	s.checkReleased("models/a", "v1", "a", a)
	if a.Attempts != 1 || a.Runs != 1 {
		t.Errorf("%d attempts in %d runs", a.Attempts, a.Runs)
	}
	checkQueueEmpty(t, url)
}

// TestKilledQueue: the queue itself is killed and comes back, while one job is in work and another waits.
func TestKilledQueue(t *testing.T) {
	files, at := filepath.Join(t.TempDir(), "queue"), freePort(t)
	q, url := startProcess(t, "queue", files, at), "nats://"+at
	startWorker(t, url, "slow-3s")
	s := startServer(t, t.TempDir(), "-queue", url, "-workers", "0")
	s.pushModel("models/a", "v1", "a")
	s.pushModel("models/b", "v1", "b")
	for len(s.admissions("?state=sanitizing")) < 2 {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(time.Second)
	q.Kill()
	var ready string
	if status := s.get("/readyz", &ready); status != 503 || !strings.Contains(ready, "queue cannot be reached") {
		t.Errorf("without its queue the server says %d %s", status, ready)
	}
	time.Sleep(3 * time.Second)
	startProcess(t, "queue", files, at)
	for _, a := range s.settle() {
		s.checkReleased(a.Source.Repository, "v1", strings.TrimPrefix(a.Source.Repository, "models/"), a)
	}
	checkQueueEmpty(t, url)
}

// TestLostQueue: the queue comes back without its files, while servers and workers run. It is filled again.
func TestLostQueue(t *testing.T) {
	files, at := filepath.Join(t.TempDir(), "queue"), freePort(t)
	q, url := startProcess(t, "queue", files, at), "nats://"+at
	startWorker(t, url, "slow-2s")
	s := startServer(t, t.TempDir(), "-queue", url, "-workers", "0")
	s.pushModel("models/a", "v1", "a") // in work
	s.pushModel("models/b", "v1", "b") // waits
	for len(s.admissions("?state=sanitizing")) < 2 {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(time.Second)
	q.Kill()
	if err := os.RemoveAll(files); err != nil {
		t.Fatal(err)
	}
	startProcess(t, "queue", files, at)
	for _, a := range s.settle() {
		s.checkReleased(a.Source.Repository, "v1", strings.TrimPrefix(a.Source.Repository, "models/"), a)
	}
	checkQueueEmpty(t, url)
}

// TestDeadLetter: a model that takes its workers down is held in the end, and can be retried.
func TestDeadLetter(t *testing.T) {
	s, url := sharedQueue(t, t.TempDir())
	s.pushModel("models/a", "v1", "a")
	id := s.admissions("")[0].ID
	for range maxAttempts {
		w := startWorker(t, url, "hang")
		w.awaitChild()
		w.Kill()
	}
	startWorker(t, url, "ok")
	a := s.settle()[0]
	if a.State != Held || a.Reason != ReasonAttempts || a.Attempts != maxAttempts+1 {
		t.Fatalf("%s %s %s, %d attempts", a.State, a.Reason, a.Message, a.Attempts)
	}
	checkQueueEmpty(t, url)
	s.post("/api/v1/admissions/"+id+"/retry", "")
	s.settle()
	s.checkReleased("models/a", "v1", "a", s.admission(id))
}

// TestRejectEndsARemoteRun: a worker whose job is withdrawn ends its sanitizer, and takes the next job.
func TestRejectEndsARemoteRun(t *testing.T) {
	s, url := sharedQueue(t, t.TempDir())
	w := startWorker(t, url, "hang")
	s.pushModel("models/a", "v1", "a")
	pid := s.sanitizerPID()
	s.post("/api/v1/admissions/"+s.admissions("")[0].ID+"/reject", `{"reason": "x"}`)
	for deadline := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the sanitizer of a rejected model runs on")
		}
	}
	checkQueueEmpty(t, url)
	s.pushModel("models/b", "v1", "b")
	if next := s.sanitizerPID(); next == pid {
		t.Error("no other sanitizer was started")
	}
	w.stop()
}

// TestWorkerWithoutTheDataset gives a verdict that names it.
func TestWorkerWithoutTheDataset(t *testing.T) {
	s, url := sharedQueue(t, t.TempDir())
	startWorker(t, url, "ok", "-data", "another")
	s.pushModel("models/a", "v1", "a")
	if a := s.settle()[0]; a.Reason != ReasonNoDataset || !strings.Contains(a.Message, "the worker ") {
		t.Errorf("%s %s", a.Reason, a.Message)
	}
}

// TestAWorkerOutlivesItsQueue: a queue that does not answer while the worker asks for its first job is waited for.
func TestAWorkerOutlivesItsQueue(t *testing.T) {
	q, err := queue.Open(t.Context(), queue.Config{Dir: t.TempDir(), Heartbeat: testHeartbeat})
	if err != nil {
		t.Fatal(err)
	}
	q.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	w := NewWorker(q, t.TempDir(), nil, nil, SanitizerConfig{}, slog.New(slog.DiscardHandler))
	go func() { ended <- w.Run(ctx) }()
	select {
	case err := <-ended:
		t.Fatalf("it gives up: %v", err)
	case <-time.After(7 * time.Second):
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	w.Labels = []string{"NO LABEL"}
	if err := w.Run(t.Context()); !errors.Is(err, queue.ErrLabel) {
		t.Errorf("a wrong label: %v", err)
	}
}

// TestForgedArguments: a job of whoever can write to the queue has a worker's sanitizer write no other files than its own, nor leave its sandbox.
func TestForgedArguments(t *testing.T) {
	at := freePort(t)
	url := "nats://" + at
	startProcess(t, "queue", filepath.Join(t.TempDir(), "queue"), at)
	startWorker(t, url, "ok")
	q, err := queue.Open(t.Context(), queue.Config{URL: url, Heartbeat: testHeartbeat})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	dir := t.TempDir()
	victim := filepath.Join(dir, "key")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "in"), 0o700), os.WriteFile(filepath.Join(dir, "in", "m.onnx"), []byte("model"), 0o600), os.WriteFile(victim, []byte("key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	run, err := q.Ask(ctx, queue.Job{Key: "x-0", Label: queue.LabelAny, Dir: dir, In: []string{"m.onnx"}, Model: "m.onnx", Dataset: "default", Args: []string{"--transform", "permute", "--report", victim}}, queue.Listener{})
	if text, rerr := os.ReadFile(victim); rerr != nil || string(text) != "key" {
		t.Errorf("the file is %q, %v (%+v, %v)", text, rerr, run, err)
	}
	for _, args := range [][]string{{"--sandbox", "off"}, {"--transform"}, {"--transform", "permute", "-o", "x"}, {"--report=x", "y"}, {"elsewhere.onnx"}} {
		if checkArgs(args) == nil {
			t.Errorf("%q is taken", args)
		}
	}
	p := &Pipeline{}
	p.Defaults = policy.Parameters{Epochs: 1, GrindEpochs: 1, Steps: 1, Batch: 1, Samples: 1, LearningRate: 1, Angle: 1, GrindSteps: 1, Preprocessing: "unit"}
	if err := checkArgs(p.sanitizerArgs(&Admission{Decision: &policy.AdmissionDecision{Transformation: string(sanitize.Rotate2D)}})); err != nil {
		t.Errorf("a server's own flags: %v", err)
	}
}

// TestABrokenWorkerRests: a machine that cannot do a job leaves the next one to others for a while, instead of failing at one after the other.
func TestABrokenWorkerRests(t *testing.T) {
	s, url := sharedQueue(t, t.TempDir())
	dir := t.TempDir()
	broken := startProcess(t, "worker", "-queue", url, "-dir", dir)
	if err := os.WriteFile(filepath.Join(dir, "work"), nil, 0o600); err != nil { // no scratch folder can be made
		t.Fatal(err)
	}
	for i := range 3 {
		s.pushModel(fmt.Sprint("models/", i), "v1", fmt.Sprint(i))
	}
	failures := func() int { return strings.Count(broken.Stderr.String(), "could not be done and is given back") }
	for deadline := time.Now().Add(30 * time.Second); failures() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it takes no job:\n%s", broken.Stderr)
		}
	}
	time.Sleep(3 * time.Second)
	if n := failures(); n != 1 {
		t.Errorf("it has failed at %d jobs", n)
	}
	startWorker(t, url, "ok")
	for i, a := range s.settle() {
		if a.State != Released {
			t.Errorf("%d: %s %s", i, a.State, a.Reason)
		}
	}
}
