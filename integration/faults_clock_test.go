package integration

import (
	"context"
	encoding "encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// skewable builds the program with a wall clock that a test can set: with the standard library's time.Now reading a file, too. (Go asks no
// library for the time, so that none can be put in its place.)
func skewable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("go env: %v", err)
	}
	original := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		t.Skipf("the source of the standard library is not here: %v", err)
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), now+"\tif mono == 0 {") != 1 {
		t.Skip("time.Now of this Go is written in another way")
	}
	patched := strings.Replace(string(text), now+"\tif mono == 0 {", now+"\tsec += skew()\n\tif mono == 0 {", 1)
	skew, err := filepath.Abs(filepath.Join("testdata", "clock", "skew.go.txt"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{original: filepath.Join(dir, "time.go"), filepath.Join(filepath.Dir(original), "zskew.go"): skew}
	overlay, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"time.go": []byte(patched), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "grindstone")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, root).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestFaultsOfTheClock sets the server's clock forward and back while it works, and kills it between: the newest push of a tag has it all
// the same, and nothing waits for the time to come again.
func TestFaultsOfTheClock(t *testing.T) {
	needFaults(t)
	program := skewable(t)
	c := newCluster(t)
	clock := filepath.Join(t.TempDir(), "clock")
	set := func(skew time.Duration) {
		t.Logf("the clock is %v wrong", skew)
		f, err := os.OpenFile(clock, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(encoding.LittleEndian.AppendUint64(nil, uint64(int64(skew.Seconds())))); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	config := c.serverConfig("")
	c.workers = []string{"server"}
	c.start("server", func() *exec.Cmd {
		cmd := exec.Command(program, "serve", "--listen", c.address, "--dir", c.dir, "--config", config)
		cmd.Env = append(os.Environ(), "GRINDSTONE_TEST_CLOCK="+clock)
		return cmd
	})
	c.awaitReady()
	watching, blind := context.WithCancel(t.Context())
	defer blind()
	w := c.startWatching(watching)
	pushing, enough := context.WithCancel(t.Context())
	p := c.startPushing(pushing)
	const day = 24 * time.Hour
	for i, skew := range []time.Duration{day, -day, 400 * day, -2 * time.Hour, time.Minute, -400 * day, 0, 3 * time.Hour} {
		time.Sleep(4 * time.Second)
		set(skew)
		if i%2 == 1 {
			time.Sleep(time.Second)
			c.processes["server"].kill(0)
		}
	}
	time.Sleep(4 * time.Second)
	enough()
	p.work.Wait()
	c.settle(settling)
	c.checkStates(p)
	c.retryHeld()
	blind()
	w.work.Wait()
	c.checkEnd(p, w)
}
