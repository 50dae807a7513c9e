package sanitize

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

const (
	// weightCopies is how often the weights are in Go's memory while the step is built and run: as read, as the model's bytes, where training started,
	// parameters and momenta, the gradient and that of a further micro-batch.
	weightCopies = 7

	// kernels is what the runtime needs for each byte of the estimate: kernels have buffers of their own, and an arena has gaps. Measured
	// are 1.1 (ResNet-18) and 1.2 (Wide ResNet-16).
	kernels = 1.3

	// program is what comes on top of what is held before the first session: the runtime's threads, sessions, and what Go has not given back yet.
	program = 48 << 20

	leastArena = 32 << 20
)

// limitMemory divides what the run may hold in memory between Go (images, features, weights, the feeder's batches) and the runtime. That gets
// the rest as one arena: an allocation beyond it fails, and evaluation and training go on with smaller batches.
func (r *run) limitMemory(context.Context) error {
	if r.MemoryLimit == 0 {
		return nil
	}
	runtime.GC()
	debug.FreeOSMemory()
	now, _ := Resident()
	features := 2 * 4 * int64(r.trainSet.Len()*r.c.FeatureWidth) // as recorded, and transformed
	feeding := 3 * int64(StepsPerRun*r.Batch*r.trainSet.Size())
	other := now + features + feeding + weightCopies*r.weightBytes() + program + r.MemoryLimit/16
	r.arena = r.MemoryLimit - other
	if r.arena < leastArena {
		return fmt.Errorf("%w: of %d MiB, %d MiB are taken by the images, the model and the program, and less than %d MiB are left for the runtime (--memory-limit)",
			ErrMemoryLimit, r.MemoryLimit>>20, other>>20, leastArena>>20)
	}
	r.report.Memory.Limit = r.MemoryLimit
	r.collect = debug.SetGCPercent(25) // garbage is memory too
	return ort.LimitMemory(r.arena)
}

// unlimitMemory gives back what limitMemory took, for whatever the process does after the run.
func (r *run) unlimitMemory() {
	if r.arena != 0 {
		debug.SetGCPercent(r.collect)
		_ = ort.LimitMemory(0) // sessions of later runs have arenas of their own again, whatever became of this one
	}
}

func (r *run) weightBytes() (n int64) {
	for _, t := range r.c.Constants {
		n += int64(len(t.Raw))
	}
	return n
}

// splitBatch chooses the largest micro-batch with which a step fits into the arena. Of a device's own memory nothing is known beforehand:
// there, an allocation that fails is what splits the batch.
func (r *run) splitBatch(o *train.StepOptions) error {
	provider, err := ort.Resolve(r.Provider)
	if err != nil || r.arena == 0 || o.Micro != 0 || provider != ort.CPU {
		return err
	}
	o.Micro, r.report.Memory.Step, err = train.FitMicro(r.c, *o, int64(float64(r.arena)/kernels))
	if err == nil && o.Micro < o.Batch {
		r.warn("a step of %d images at once would pass the memory limit of %d MiB: the batch is split into micro-batches of %d, by which BatchNormalization normalizes",
			o.Batch, r.MemoryLimit>>20, o.Micro)
	}
	return err
}

// outOfMemory reports that an allocation failed and training goes on with micro-batches of n images.
func (r *run) outOfMemory(n int, why error) {
	r.warn("memory ran out (%s): the batch is split into micro-batches of %d, by which BatchNormalization normalizes", firstLine(why.Error()), n)
}

func (r *run) warn(format string, a ...any) {
	r.report.Warnings = append(r.report.Warnings, fmt.Sprintf(format, a...))
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// Resident is what the process holds in main memory, and the most that it held, in bytes; zeros where the system does not tell (Linux does).
func Resident() (now, peak int64) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	return now, peak
}
