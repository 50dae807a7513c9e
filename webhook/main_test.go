package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"grindstone/sanitize"
)

// TestMain lets the test binary stand in for other programs, as their own processes: for a sanitizer that behaves well or badly,
// and for a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "sanitizer":
			os.Exit(testSanitizer(os.Args[2], os.Args[3:]))
		case "server":
			os.Exit(testServer(os.Args[2:]))
		case "worker":
			os.Exit(testWorker(os.Args[2:]))
		case "queue":
			os.Exit(testQueue(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// sanitizerCommand is the command of a sanitizer process with the given behaviour.
func sanitizerCommand(behaviour string) []string { return []string{os.Args[0], "sanitizer", behaviour} }

// testSanitizer follows the protocol of the sanitize command and misbehaves as it is told to.
func testSanitizer(behaviour string, args []string) int {
	flag := func(name string) (value string) {
		for i, arg := range args {
			if arg == name {
				value = args[i+1] // the last counts, as in the real command
			}
		}
		return value
	}
	say := func(p sanitize.Progress) {
		data, _ := json.Marshal(p)
		fmt.Println(string(data))
	}
	fail := func(code int, text string) int {
		say(sanitize.Progress{Phase: "failed", Error: text})
		fmt.Fprintln(os.Stderr, text)
		return code
	}
	say(sanitize.Progress{Phase: "load", Message: "reading"})
	model, err := os.ReadFile(args[0])
	if err != nil {
		return fail(1, err.Error())
	}
	if behaviour == "named" { // by the model
		if _, name, ok := bytes.Cut(model, []byte("sanitizer:")); ok {
			behaviour, _, _ = strings.Cut(string(name), ";")
		}
	}
	switch behaviour {
	case "crash":
		syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	case "panic":
		panic("a bug in the sanitizer")
	case "hang":
		signal.Ignore(os.Interrupt, syscall.SIGTERM)
		say(sanitize.Progress{Phase: "grind", Step: 1, Steps: 100, Message: fmt.Sprint(os.Getpid())})
		select {}
	case "greedy":
		var held [][]byte
		for {
			block := make([]byte, 16<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			held = append(held, block)
			if len(held) > 256 { // 4 GiB: the limit does not work
				return fail(1, "nobody stopped me")
			}
		}
	case "greedy-lazily": // it asks for memory and does not use it
		var held [][]byte
		for len(held) < 256 {
			held = append(held, make([]byte, 16<<20))
		}
		return fail(1, fmt.Sprintf("nobody stopped me at %d blocks", len(held)))
	case "greedy-at-once":
		if _, err := syscall.Mmap(-1, 0, 3<<30, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE); err != nil {
			return fail(1, err.Error())
		}
	case "reserves": // as CUDA and ONNX Runtime do
		if _, err := syscall.Mmap(-1, 0, 64<<30, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE); err != nil {
			return fail(1, err.Error())
		}
	case "unsupported":
		return fail(exitModel, "operator NonMaxSuppression has no gradient rule")
	case "malformed":
		return fail(exitModel, "model.onnx: malformed ONNX: truncated")
	case "bad-dataset":
		return fail(exitDataset, "no images")
	case "no-runtime":
		return fail(exitRuntime, "no usable ONNX Runtime library found")
	case "at-chance":
		return fail(exitAccuracy, "the model's accuracy on the clean dataset is at chance")
	case "guesses":
		return fail(exitAccuracy, "at chance; check its preprocessing (--preprocess)")
	case "no-memory":
		return fail(exitMemory, "the memory limit is too low")
	case "late-at-chance":
		time.Sleep(4 * time.Second)
		return fail(exitAccuracy, "the model's accuracy on the clean dataset is at chance")
	case "gives-up":
		return fail(1, "no learning rate trains this model")
	case "interrupted":
		return fail(exitInterrupted, "interrupted")
	case "silent":
		return 0
	case "noise":
		fmt.Println(strings.Repeat("x", 1<<20))
		fmt.Print("\x1b[2J{not json}\n{}\n\x00\x01\n")
	case "environment":
		for _, name := range []string{"GRINDSTONE_KEY_PASSWORD", "AWS_SECRET_ACCESS_KEY"} {
			if os.Getenv(name) != "" {
				return fail(1, "it sees "+name)
			}
		}
		if os.Getenv("TMPDIR") == "" || os.Getenv("PATH") == "" {
			return fail(1, "it lacks TMPDIR or PATH")
		}
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 {
			return fail(1, fmt.Sprintf("it may dump %d bytes of core", limit.Cur))
		}
	}
	if pause := strings.TrimPrefix(behaviour, "slow-"); pause != behaviour {
		d, _ := time.ParseDuration(pause)
		for i := range 10 {
			say(sanitize.Progress{Phase: "grind", Step: i + 1, Steps: 10})
			time.Sleep(d / 10)
		}
	}

	if kind, ok := strings.CutPrefix(behaviour, "report-"); ok {
		return trap(flag("--report"), kind)
	}
	if kind, ok := strings.CutPrefix(behaviour, "model-"); ok {
		return trap(flag("-o"), kind)
	}
	out := append(bytes.Clone(model), "sanitized"...)
	if behaviour == "unchanged" || behaviour == "outside" {
		out = model
	}
	if err := os.WriteFile(flag("-o"), out, 0o600); err != nil {
		return fail(1, err.Error())
	}
	r := testReport(args[0], flag("-o"))
	if behaviour == "outside" { // all weights are in weights.bin: the model stays as it is
		pushed, err := os.ReadFile(filepath.Join(filepath.Dir(args[0]), "weights.bin"))
		if err != nil {
			return fail(1, err.Error())
		}
		weights := append(bytes.Clone(pushed), "sanitized"...)
		if err := os.WriteFile(filepath.Join(filepath.Dir(flag("-o")), "weights.bin"), weights, 0o600); err != nil {
			return fail(1, err.Error())
		}
		r.ExternalData = []sanitize.DataFile{{Name: "weights.bin", Size: int64(len(weights)), SourceSHA256: digest.FromBytes(pushed).Encoded(), SanitizedSHA256: digest.FromBytes(weights).Encoded()}}
	}
	r.Transformation = flag("--transform")
	switch behaviour {
	case "secretive":
		r.SecretDiscarded = false
	case "other-model":
		r.Sanitized.SHA256 = strings.Repeat("0", 64)
	case "other-transformation":
		r.Transformation = "rotate-2d"
	case "inaccurate":
		r.After.CDA = sanitize.Rate{Value: 0.5, Hits: 500, Count: 1000, Low: 0.47, High: 0.53}
	}
	data, _ := json.Marshal(r)
	if behaviour == "bad-report" {
		data = data[:len(data)/2]
	}
	if err := os.WriteFile(flag("--report"), data, 0o600); err != nil {
		return fail(1, err.Error())
	}
	say(sanitize.Progress{Phase: "done"})
	return 0
}

// trap puts something in a file's place that must not be read.
func trap(path, kind string) int {
	var err error
	switch kind {
	case "pipe":
		err = syscall.Mkfifo(path, 0o600)
	case "endless":
		err = os.Symlink("/dev/zero", path)
	case "huge":
		err = errors.Join(os.WriteFile(path, []byte("{}"), 0o600), os.Truncate(path, 1<<40))
	}
	report := filepath.Join(filepath.Dir(path), "report.json")
	if _, serr := os.Lstat(report); serr != nil {
		err = errors.Join(err, os.WriteFile(report, []byte("{}"), 0o600))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// testReport is the report of a run that lost little accuracy.
func testReport(source, sanitized string) sanitize.Report {
	info := func(path string) sanitize.FileInfo {
		sum, size, err := syncedSHA256(path, 1<<30)
		if err != nil {
			panic(err)
		}
		return sanitize.FileInfo{Name: "model.onnx", SHA256: sum, Size: size}
	}
	now := time.Now().UTC()
	return sanitize.Report{
		SchemaVersion: "1.0", Method: "feature-grinding", Transformation: "permute", Source: info(source), Sanitized: info(sanitized),
		Hyperparameters: sanitize.Hyperparameters{Epochs: 5, GrindEpochs: 2, Steps: 100, GrindSteps: 40, BatchSize: 32, LearningRate: 0.02,
			LearningRateFrom: "search", Momentum: 0.9, WeightDecay: 5e-4, Optimizer: "sgd-nesterov", Schedule: "cosine", AlphaGrind: 0.8,
			AlphaRestore: 0.2, Seed: 1, Unfold: true},
		Dataset:       sanitize.DatasetInfo{Name: "default", Digest: "sha256:" + strings.Repeat("d", 64), Classes: 10, Train: 9000, HeldOut: 1000},
		Preprocessing: sanitize.Preprocessing{Name: "unit", Layout: "NCHW", From: "auto", Margin: 0.3},
		FeatureLayer:  "features", FeatureWidth: 64,
		Before:    sanitize.Metrics{CDA: sanitize.Rate{Value: 0.95, Hits: 950, Count: 1000, Low: 0.935, High: 0.962}},
		After:     sanitize.Metrics{CDA: sanitize.Rate{Value: 0.94, Hits: 940, Count: 1000, Low: 0.924, High: 0.953}},
		Phases:    []sanitize.Phase{{Name: "grind", Alpha: 0.8, Steps: 40, Seconds: 1}, {Name: "restore", Alpha: 0.2, Steps: 60, Seconds: 1}},
		Runtime:   sanitize.Runtime{Engine: "onnxruntime", Version: "1.27.0", Provider: "CPUExecutionProvider", Device: "cpu", Threads: 1},
		StartedAt: now.Add(-2 * time.Second), FinishedAt: now, Seconds: 2, ImagesPerSecond: 1000, SecretDiscarded: true,
	}
}
