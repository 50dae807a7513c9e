package queue

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestHostileResults: a worker gets no other files into the job's folder than the package's, no more bytes than a model may have, and does not have the server
// wait for what never comes.
func TestHostileResults(t *testing.T) {
	server, worker := shared(t)
	meta := func(name string, change func(*jetstream.ObjectInfo)) {
		t.Helper()
		info, err := worker.files.GetInfo(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		change(info)
		text, err := json.Marshal(info)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := worker.js.Publish(t.Context(), metaSubject(name), text); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		out    []string
		attack func(out string)
	}{
		"another name":   {[]string{"other.onnx"}, nil},
		"outside":        {[]string{"../in/sub/m.onnx"}, nil},
		"a name twice":   {[]string{"sub/m.onnx", "sub/m.onnx"}, nil},
		"too large":      {[]string{"sub/m.onnx"}, func(out string) { meta(out+"/out/sub/m.onnx", func(i *jetstream.ObjectInfo) { i.Size = 1 << 50 }) }},
		"more than said": {[]string{"sub/m.onnx"}, func(out string) { meta(out+"/out/sub/m.onnx", func(i *jetstream.ObjectInfo) { i.Size = 3 }) }},
		"a link": {[]string{"sub/m.onnx"}, func(out string) {
			meta(out+"/out/sub/m.onnx", func(i *jetstream.ObjectInfo) {
				i.Opts.Link = &jetstream.ObjectLink{Bucket: bucketFiles, Name: out + "/out/sub/m.onnx"}
			})
		}},
		"a large report": {[]string{"sub/m.onnx"}, func(out string) { meta(out+"/report.json", func(i *jetstream.ObjectInfo) { i.Size = maxReport + 1 }) }},
		"no chunks":      {[]string{"sub/m.onnx"}, func(out string) { meta(out+"/out/sub/m.onnx", func(i *jetstream.ObjectInfo) { i.NUID = "nothing" }) }},
	} {
		t.Run(name, func(t *testing.T) {
			j := job(t, "a-0")
			j.Most = 1 << 20
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go func() {
				taker, err := worker.Taker(ctx, "hostile", []string{LabelAny})
				for err == nil {
					var d *Delivery
					if d, _, err = taker.Take(ctx); err != nil {
						return
					}
					dir := t.TempDir()
					for _, name := range append([]string{reportFile}, "out/other.onnx", "out/sub/m.onnx", "in/sub/m.onnx") {
						path := filepath.Join(dir, name)
						_ = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("something"), 0o600))
					}
					if err := d.store(ctx, dir, c.out); err != nil {
						t.Error(err)
					}
					if c.attack != nil {
						c.attack(outFolder(d.Job.Key, d.files()))
					}
					if err := d.Finish(ctx, dir, Result{Out: c.out}); err != nil {
						t.Error(err)
					}
				}
			}()
			_, err := server.Ask(ctx, j, Listener{})
			if !errors.Is(err, ErrResult) {
				t.Errorf("%v", err)
			}
			if _, err := os.Stat(filepath.Join(j.Dir, "out", "other.onnx")); err == nil {
				t.Error("a file of another name is there")
			}
			if err := server.Withdraw(t.Context(), j.Key); err != nil {
				t.Fatal(err)
			}
		})
	}
}
