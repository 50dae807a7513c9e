package sandbox

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// attempts are what the confined process tries, by the name of what it tries.
type attempts struct {
	Folders          Files
	Secret, Readable string // files
	Outside, Inside  string // files to be written
	Link             string // in a folder that may be read; points at Secret
	Linked           string // in a folder that is trusted; points at a file elsewhere
	Address          string // somebody listens
	Parent           int    // process
}

func TestMain(m *testing.M) {
	if text := os.Getenv("SANDBOX_ATTEMPTS"); text != "" {
		attempt(text)
		return
	}
	os.Exit(m.Run())
}

// attempt enters the sandbox and prints, as JSON, which attempts were refused and why.
func attempt(text string) {
	var a attempts
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		panic(err)
	}
	name, err := Enter(Require, a.Folders)
	if err != nil {
		panic(err)
	}
	refused := map[string]string{"name": name}
	try := func(what string, err error) {
		if err != nil {
			refused[what] = err.Error()
		}
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EXDEV) { // EXDEV: a file may not go to another folder
			refused[what] = "not for want of permission: " + err.Error()
		}
	}
	read := func(path string) error { _, err := os.ReadFile(path); return err }
	write := func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }
	try("read secret", read(a.Secret))
	try("read secret by a link", read(a.Link))
	done := make(chan error)
	for range 20 { // on as many threads as there may be
		go func() { done <- read(a.Secret) }()
	}
	for range 20 {
		if <-done == nil {
			delete(refused, "read secret")
		}
	}
	try("write outside", write(a.Outside))
	try("write where one may read", write(a.Readable+".new"))
	try("remove where one may read", os.Remove(a.Readable+".other"))
	try("rename out", os.Rename(a.Readable, a.Outside))
	try("list outside", func() error { _, err := os.ReadDir(filepath.Dir(a.Secret)); return err }())
	try("passwords", read("/etc/passwd"))
	try("the parent's environment", read("/proc/"+strconv.Itoa(a.Parent)+"/environ"))
	try("the parent's files", read("/proc/"+strconv.Itoa(a.Parent)+"/root"+a.Secret))
	try("signal the parent", syscall.Kill(a.Parent, 0))
	connection, err := net.Dial("tcp", a.Address)
	try("connect", err)
	if err == nil {
		connection.Close()
	}
	try("a program that reads it", exec.Command("cat", a.Secret).Run())
	if _, ok := refused["a program that reads it"]; ok { // the program says why
		refused["a program that reads it"] = "cat fails"
	}
	try("read", read(a.Readable))
	try("read by a link", read(a.Linked))
	try("write", write(a.Inside))
	try("rename", os.Rename(a.Inside, a.Inside+".renamed"))
	try("remove", os.Remove(a.Inside+".renamed"))
	try("null", write(os.DevNull))
	try("its own threads", read("/proc/self/status"))
	if !isOpen("/proc/" + strconv.Itoa(os.Getpid()) + "/task") {
		refused["its own threads, when memory is short"] = "nothing keeps them open"
	}
	_ = json.NewEncoder(os.Stdout).Encode(refused)
}

// isOpen tells whether this process has a file open.
func isOpen(path string) bool {
	all, _ := os.ReadDir("/proc/self/fd")
	return slices.ContainsFunc(all, func(fd os.DirEntry) bool {
		target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		return target == path
	})
}

// TestEnter: a process that is confined reads and writes what it may, and nothing else, by no thread, link, file of /proc, child or connection.
func TestEnter(t *testing.T) {
	name, err := Available()
	if err != nil {
		t.Skip(err)
	}
	version, err := strconv.Atoi(strings.TrimPrefix(name, "landlock "))
	if err != nil {
		t.Fatalf("%q has no version", name)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := t.TempDir()
	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	for _, folder := range []string{"secret", "data", "images", "elsewhere", "work"} {
		if err := os.Mkdir(at(folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{at("secret", "key"), at("data", "images"), at("data", "images.other"), at("elsewhere", "image")} {
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{at("data", "link"): at("secret", "key"), at("images", "link"): at("elsewhere", "image"), at("images", "broken"): at("nothing")} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	a := attempts{
		Folders: Files{Read: []string{at("data"), at("nothing")}, Trusted: []string{at("images"), at("nothing")}, Write: []string{at("work"), at("nothing")}},
		Secret:  at("secret", "key"), Link: at("data", "link"), Linked: at("images", "link"), Readable: at("data", "images"), Outside: at("secret", "new"), Inside: at("work", "new"),
		Address: listener.Addr().String(), Parent: os.Getpid(),
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SANDBOX_ATTEMPTS="+string(text), "GODEBUG=multipathtcp=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var refused map[string]string
	if err := json.Unmarshal(out, &refused); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if refused["name"] != name {
		t.Errorf("%q confines it, and %q is available", refused["name"], name)
	}
	for what, since := range map[string]int{
		"read secret": 1, "read secret by a link": 1, "write outside": 1, "write where one may read": 1, "remove where one may read": 1, "rename out": 1, "list outside": 1,
		"passwords": 1, "the parent's environment": 1, "the parent's files": 1, "signal the parent": 6, "connect": 4, "a program that reads it": 1,
	} {
		why, ok := refused[what]
		if version >= since && (!ok || strings.Contains(why, "not for want")) {
			t.Errorf("%s: refused %v %s", what, ok, why)
		}
	}
	for _, what := range []string{"read", "read by a link", "write", "rename", "remove", "null", "its own threads", "its own threads, when memory is short"} {
		if why, ok := refused[what]; ok {
			t.Errorf("%s is refused: %s", what, why)
		}
	}
}

// TestModes: what is off confines nothing.
func TestModes(t *testing.T) {
	if name, err := Enter(Off, Files{}); name != "" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	if _, err := os.ReadFile(os.Args[0]); err != nil {
		t.Error(err)
	}
}
