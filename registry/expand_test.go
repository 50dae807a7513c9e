package registry

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// zstdFrame is a frame of zstd with one block as it is, and a window of 1<<log bytes: of the given number, or as long as the whole content.
func zstdFrame(log int, whole bool, content []byte) []byte {
	head := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(log-10) << 3}
	if whole {
		head = binary.LittleEndian.AppendUint64([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0}, 1<<log)
	}
	block := len(content)<<3 | 1 // the last
	return concat(head, []byte{byte(block), byte(block >> 8), byte(block >> 16)}, content)
}

// A layer cannot make the reader take more memory than the zstd program takes: a larger window is a problem, whatever is in the layer.
func TestZstdWindow(t *testing.T) {
	archive := tarOf(t, "m.onnx", string(model("in a window")))
	s := serve(t, t.TempDir(), Limits{})
	for name, c := range map[string]struct {
		layer   []byte
		problem string
	}{
		"as large as it may be": {zstdFrame(27, false, archive), ""},
		"large":                 {zstdFrame(29, false, archive), "--long=27"},
		"large, no archive":     {zstdFrame(29, false, []byte("text")), "--long=27"},
		"as long as the file":   {zstdFrame(29, true, archive), "--long=27"},
		"in a later frame":      {concat(zstdOf(t, archive[:600]), zstdFrame(29, false, archive[600:])), "--long=27"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, p := s.pushLayer(c.layer)
		runtime.ReadMemStats(&after)
		if !strings.Contains(p.Problem, c.problem) || (p.Problem == "") != (c.problem == "") {
			t.Errorf("%s: %q, want %q", name, p.Problem, c.problem)
		}
		if took := after.TotalAlloc - before.TotalAlloc; c.problem != "" && took > 32<<20 {
			t.Errorf("%s: it took %d MiB", name, took>>20)
		}
	}
}

// Packages are looked through a few at a time, and who waits for that gives up when the client does.
func TestInspectionsAtATime(t *testing.T) {
	s := serve(t, t.TempDir(), Limits{})
	for range maxInspections {
		s.g.inspecting <- struct{}{}
	}
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		s.pushLayer(model("waiting"))
	}()
	select {
	case <-pushed:
		t.Error("one more is looked through")
	case <-time.After(300 * time.Millisecond):
	}
	<-s.g.inspecting
	<-pushed
	if len(s.g.inspecting) != maxInspections-1 {
		t.Errorf("%d places are taken", len(s.g.inspecting))
	}
	s.g.inspecting <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.g.Fetch(ctx, repo, s.desk.last(t).Digest, t.TempDir()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// FuzzExpand: whatever a layer is, reading it ends, and in an error that clients understand.
func FuzzExpand(f *testing.F) {
	f.Add(zstdFrame(27, false, []byte("content")))
	f.Add(zstdFrame(29, true, []byte("content")))
	f.Add([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"))
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x4b\x04\x00\x43\xbe\xb7\xe8\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, layer []byte) {
		r, kind, err := expand(bytes.NewReader(layer))
		if err != nil {
			if reason := errArchive(""); !errors.As(err, &reason) {
				t.Fatal(err)
			}
			return
		}
		defer r.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(io.LimitReader(r, 1<<20)); err == nil && kind == plain && !bytes.Equal(b.Bytes(), layer) {
			t.Fatal("what is not compressed changes")
		}
	})
}
