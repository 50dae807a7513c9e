package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"grindstone/webhook"
)

// TestFaultsOfStateFiles damages files of a server that was killed in the middle of its work. It starts again, shows nothing of the model
// whose record is gone, and takes it when it is pushed again.
func TestFaultsOfStateFiles(t *testing.T) {
	needFaults(t)
	for _, damage := range []struct {
		name  string
		files string // below the server's folder
		how   func([]byte) []byte
	}{
		{"a record of zeros", "state/admissions/*.json", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"half a record", "state/admissions/*.json", func(b []byte) []byte { return b[:len(b)/2] }},
		{"an empty server id", "state/server-id", func([]byte) []byte { return nil }},
		{"half of every file of the queue", "state/queue/jetstream/*/*/*/*/*", func(b []byte) []byte { return b[:len(b)/2] }},
		{"zeros in every file of the queue's streams", "state/queue/jetstream/*/streams/*/*", func(b []byte) []byte { return make([]byte, len(b)) }},
	} {
		t.Run(damage.name, func(t *testing.T) {
			c := startAlone(t, "")
			w := &watcher{cluster: c, seen: map[acknowledged]time.Time{}}
			p := &pushers{cluster: c}
			c.acknowledgedWithin(p, 0, "through", 15*time.Second)
			c.settle(settling)
			c.acknowledgedWithin(p, 1, "in work", 15*time.Second)
			c.awaitState(webhook.Sanitizing)
			server := c.processes["server"]
			server.kill(2 * time.Second)
			time.Sleep(500 * time.Millisecond)
			paths, err := filepath.Glob(filepath.Join(c.dir, filepath.FromSlash(damage.files)))
			if err != nil {
				t.Fatal(err)
			}
			damaged := 0
			for _, path := range paths {
				text, err := os.ReadFile(path)
				if err != nil && !isDir(path) {
					t.Fatal(err)
				}
				var record struct{ State webhook.State }
				if isDir(path) || strings.Contains(damage.files, "admissions") && json.Unmarshal(text, &record) == nil && record.State.Final() {
					continue
				}
				if err := os.WriteFile(path, damage.how(text), 0o600); err != nil {
					t.Fatal(err)
				}
				damaged++
			}
			if damaged == 0 {
				t.Fatalf("there is no %s", damage.files)
			}
			c.awaitReady()
			if status, _, err := head(t.Context(), c.client, "http://"+c.address+"/v2/"+repositoryOfPusher(0)+"/manifests/"+p.acked[1].digest); err != nil || status == 200 {
				t.Errorf("the model in quarantine is answered with %d, %v", status, err)
			}
			if strings.Contains(damage.files, "admissions") {
				if !strings.Contains(server.log.String(), "an admission record cannot be read") {
					t.Error("the log does not tell of the damaged record")
				}
				for _, g := range c.garbage().Garbage {
					if g.Kind == webhook.GarbagePackage && g.Digest == p.acked[1].digest {
						t.Errorf("the package of the damaged record is garbage: %+v", g)
					}
				}
				p.acked = p.acked[:1]
				c.acknowledgedWithin(p, 1, "in work", 15*time.Second) // the same again
			}
			c.settle(settling)
			c.checkStates(p)
			c.retryHeld()
			c.checkTags(p)
			c.checkContent(w)
			if text := broken.FindString(server.log.String()); text != "" {
				t.Error(text)
			}
		})
	}
}

// TestFaultsOfAnIndex damages the index of a repository: a server does not start on it, says so, and does start when it is restored.
func TestFaultsOfAnIndex(t *testing.T) {
	needFaults(t)
	c := startAlone(t, "")
	p := &pushers{cluster: c}
	c.acknowledgedWithin(p, 0, "through", 15*time.Second)
	c.settle(settling)
	path := filepath.Join(c.dir, "registry", "released", filepath.FromSlash(repositoryOfPusher(0)), "index.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	server := c.processes["server"]
	server.kill(time.Second)
	time.Sleep(500 * time.Millisecond)
	if err := os.WriteFile(path, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, ends := server.exits()
		if len(ends) > 0 && strings.Contains(ends[0], path+" is damaged; restore it") {
			break
		}
		if len(ends) > 0 || time.Now().After(deadline) {
			t.Fatalf("the server does not say that %s is damaged: %q", path, ends)
		}
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c.awaitReady()
	c.checkStates(p)
	c.checkTags(p)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
