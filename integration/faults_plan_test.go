package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The fault tests run real processes and kill them (`make test-faults`). Without -faults they are skipped.
var (
	faultCount = flag.Int("faults", 0, "how many processes the fault tests kill; 0 skips them")
	faultSeed  = flag.Uint64("seed", 1, "of the plan by which the fault tests kill")
)

func needFaults(t *testing.T) {
	t.Helper()
	if *faultCount == 0 {
		t.Skip("run by make test-faults")
	}
}

// fault is one kill -9.
type fault struct {
	Pause  time.Duration // since the fault before
	Target string        // name of a process; "sanitizer" is one that a worker runs
	Down   time.Duration // before the process is started again
}

func (f fault) String() string {
	return fmt.Sprintf("after %4d ms kill -9 %-9s down %4d ms", f.Pause.Milliseconds(), f.Target, f.Down.Milliseconds())
}

// faultPlan draws n faults: the same for the same seed, a longer plan begins with the shorter one. A target that is named twice is hit twice
// as often. One fault of eight comes together with the one before.
func faultPlan(seed uint64, n int, targets ...string) []fault {
	random := rand.New(rand.NewPCG(seed, 0))
	plan := make([]fault, n)
	for i := range plan {
		plan[i] = fault{
			Pause:  time.Duration(random.IntN(1400)) * time.Millisecond,
			Target: targets[random.IntN(len(targets))],
			Down:   time.Duration(random.IntN(1500)) * time.Millisecond,
		}
		if random.IntN(8) == 0 {
			plan[i].Pause = 0
		}
	}
	return plan
}

func TestFaultPlan(t *testing.T) {
	targets := []string{"server", "sanitizer", "nats-1"}
	plan := faultPlan(7, 100, targets...)
	if !slices.Equal(plan[:40], faultPlan(7, 40, targets...)) {
		t.Error("the same seed gives another plan")
	}
	if slices.Equal(plan, faultPlan(8, 100, targets...)) {
		t.Error("another seed gives the same plan")
	}
	for _, name := range targets {
		if !slices.ContainsFunc(plan, func(f fault) bool { return f.Target == name }) {
			t.Errorf("%s is never hit", name)
		}
	}
}
