package sanitize

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// wideBatch are options under which one step needs some hundred MiB.
func wideBatch(t testing.TB) Options {
	o := toyOptions(t)
	o.Batch, o.Steps, o.LearningRate = 20000, new(8), .2
	return o
}

// TestMain runs the sanitizer instead of the tests where the environment has its options: memory is measured in a process of its own.
func TestMain(m *testing.M) {
	if text := os.Getenv("GRINDSTONE_TEST_RUN"); text != "" {
		var o Options
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			panic(err)
		}
		r, err := Run(context.Background(), o)
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runAlone runs the sanitizer in a process of its own and returns its report, and the most bytes that the kernel saw it hold.
func runAlone(t *testing.T, o Options) (*Report, int64) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "GRINDSTONE_TEST_RUN="+string(text))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	r := &Report{}
	if err := json.Unmarshal(out, r); err != nil {
		t.Fatal(err)
	}
	return r, maxResident(cmd.ProcessState.SysUsage())
}

// maxResident is a process's peak in bytes; 0 where it is not known in what unit the system counts (Linux counts in KiB).
func maxResident(usage any) int64 {
	if u, ok := usage.(*syscall.Rusage); ok && runtime.GOOS == "linux" {
		return u.Maxrss << 10
	}
	return 0
}

// TestMemoryLimit: under a limit that the whole batch would pass, a run stays below it, says that it split the batch, and works.
func TestMemoryLimit(t *testing.T) {
	o := wideBatch(t)
	free, whole := runAlone(t, o)
	if whole == 0 {
		t.Skip("this system does not tell how much memory a process held")
	}
	if free.Hyperparameters.MicroBatch != 0 || len(free.Warnings) != 0 || free.Memory.Limit != 0 {
		t.Errorf("without a limit: micro-batches of %d, %q", free.Hyperparameters.MicroBatch, free.Warnings)
	}
	if off := math.Abs(float64(free.Memory.Peak-whole)) / float64(whole); off > .1 {
		t.Errorf("the report says %d bytes at most, the kernel %d", free.Memory.Peak, whole)
	}
	o.MemoryLimit = whole * 6 / 10
	r, held := runAlone(t, o)
	micro := r.Hyperparameters.MicroBatch
	t.Logf("whole batch %d MiB; limit %d, held %d, step estimated at %d in micro-batches of %d", whole>>20, o.MemoryLimit>>20, held>>20, r.Memory.Step>>20, micro)
	if held > o.MemoryLimit {
		t.Errorf("the process held %d bytes, the limit was %d", held, o.MemoryLimit)
	}
	if micro == 0 || micro >= o.Batch || o.Batch%micro != 0 || r.Memory.Limit != o.MemoryLimit || r.Memory.Step == 0 {
		t.Errorf("micro-batches of %d, %+v", micro, r.Memory)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "micro-batches of") {
		t.Errorf("warnings %q", r.Warnings)
	}
	if r.After.CDA.Value < .9-slack {
		t.Errorf("CDA %v", r.After.CDA)
	}
}

// TestMicroBatch: a batch can be split by choice, and a model with BatchNormalization learns its task nevertheless.
func TestMicroBatch(t *testing.T) {
	o := toyOptions(t)
	o.Transformation, o.MicroBatch = Permute, 8
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	checkRun(t, o, r)
	if r.Hyperparameters.MicroBatch != 8 || r.After.CDA.Value < .9-slack {
		t.Errorf("micro-batches of %d, CDA %v", r.Hyperparameters.MicroBatch, r.After.CDA)
	}
}

// TestArenaTooSmall: an estimate that is too low is caught by the arena, whose failing allocation splits the batch further; evaluation splits too.
func TestArenaTooSmall(t *testing.T) {
	o := wideBatch(t)
	o.MicroBatch = o.Batch // by choice: nothing is estimated
	o.MemoryLimit = 400 << 20
	if now, _ := Resident(); now > 200<<20 {
		o.MemoryLimit += now
	}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Hyperparameters.MicroBatch; m == 0 || len(r.Warnings) == 0 || !strings.Contains(r.Warnings[0], "memory ran out") {
		t.Errorf("micro-batches of %d, warnings %q", m, r.Warnings)
	}

	o.MemoryLimit = 64 << 20
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrMemoryLimit) {
		t.Errorf("64 MiB: %v", err)
	}
}
