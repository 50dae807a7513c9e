package integration

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"grindstone/webhook"
)

// TestClientReadme follows the README from "make build" to why a push is held, command by command, with the real oras: five commands, on a machine
// that has no clean dataset.
func TestClientReadme(t *testing.T) {
	needPrograms(t)
	_, section, _ := strings.Cut(readFile(t, filepath.Join(root, "README.md")), "## In use")
	var commands []string
	for line := range strings.Lines(section) {
		command, _, _ := strings.Cut(strings.TrimSpace(line), "  #")
		if strings.HasPrefix(line, "    ") && len(commands) < 5 {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	for i, begin := range []string{"make build", "bin/grindstone serve", "oras push --plain-http 127.0.0.1:5050/", "bin/grindstone admissions list", "bin/grindstone admissions show ID"} {
		if len(commands) != 5 || !strings.HasPrefix(commands[i], begin) {
			t.Fatalf("the README's commands are %q; the %d. is to begin with %q", commands, i+1, begin)
		}
	}
	if !strings.Contains(section, "Without `--data`") {
		t.Error("the README does not say what happens without a dataset")
	}
	s := startServer(t)
	h := newShell(t, s)
	run := func(p program, command string) string {
		t.Helper()
		args := strings.Fields(strings.ReplaceAll(command, "127.0.0.1:5050", s.address))[1:]
		if p != orasCLI {
			args = append(args, "--server", "http://"+s.address)
		}
		return h.run(p, args...)
	}
	grindstone := program{name: binary(t)}
	run(orasCLI, commands[2])
	s.await("models/resnet", time.Minute)
	list := run(grindstone, commands[3])
	id := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindString(list)
	if id == "" || !strings.Contains(list, "held") {
		t.Fatalf("the list is\n%s", list)
	}
	show := run(grindstone, strings.Replace(commands[4], "ID", id, 1))
	for _, word := range []string{"held", string(webhook.ReasonNoDataset), "clean dataset"} {
		if !strings.Contains(show, word) {
			t.Errorf("who asks why is not told %q:\n%s", word, show)
		}
	}
}
