package registry

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Ten thousand uploads are begun and not finished: most are refused, and who finishes his is served; in a repository that is intercepted and in
// one that is not.
func TestTenThousandOpenUploads(t *testing.T) {
	for _, repository := range []string{repo, "public/a"} {
		t.Run(repository, func(t *testing.T) { testTenThousandOpenUploads(t, repository) })
	}
}

func testTenThousandOpenUploads(t *testing.T, repository string) {
	s := serveWith(t, Config{Dir: t.TempDir(), Limits: Limits{Uploads: 300, UploadsEach: 200}})
	post := func(who string) response {
		return s.do("POST", "/v2/"+repository+"/blobs/uploads/", nil, "X-Test-Identity", who)
	}
	mine := s.expect(http.StatusAccepted, "POST", "/v2/"+repository+"/blobs/uploads/", nil, "X-Test-Identity", pusher).header.Get("Location")
	greedy := 0
	for range 250 {
		if post("greedy").status == http.StatusAccepted {
			greedy++
		}
	}
	if greedy != 200 {
		t.Errorf("one identity has %d uploads open", greedy)
	}
	var taken, refused atomic.Int64
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for range 1250 {
				switch r := post(fmt.Sprint("flood-", worker%2)); r.status {
				case http.StatusAccepted:
					taken.Add(1)
				case http.StatusTooManyRequests:
					if codes, _ := r.errors(t); codes[0] != "TOOMANYREQUESTS" || r.header.Get("Retry-After") == "" {
						t.Errorf("%v %v", codes, r.header)
					}
					refused.Add(1)
				default:
					t.Errorf("%d %s", r.status, r.body)
				}
			}
		})
	}
	group.Wait()
	if taken.Load() < 80 || taken.Load() > 99 || taken.Load()+refused.Load() != 10_000 {
		t.Errorf("%d taken, %d refused", taken.Load(), refused.Load())
	}
	// An upload belongs to who began it.
	content := "content"
	d := "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
	s.expect(http.StatusNotFound, "PUT", withQuery(mine, "digest="+d), strings.NewReader(content), "X-Test-Identity", "flood-0")
	s.expect(http.StatusNotFound, "GET", mine, nil)
	s.expect(http.StatusCreated, "PUT", withQuery(mine, "digest="+d), strings.NewReader(content), "X-Test-Identity", pusher)
	if post(pusher).status != http.StatusAccepted {
		t.Error("there is no place after an upload was finished")
	}
	// What is idle for long gives its place away.
	s.g.uploads.mu.Lock()
	for _, u := range s.g.uploads.open {
		u.used.Add(-2 * int64(uploadIdle))
	}
	s.g.uploads.mu.Unlock()
	if post("flood-0").status != http.StatusAccepted {
		t.Error("idle uploads keep their places")
	}
	if n := len(s.g.uploads.open); n != 1 {
		t.Errorf("%d uploads are open", n)
	}
}

// A body that comes fast and then pauses, and one that comes steadily and for too long, are cut off.
func TestPausesAndLongBodies(t *testing.T) {
	for name, c := range map[string]struct {
		limits       Limits
		begin        int // bytes that come at once
		pause        time.Duration
		least, limit time.Duration
	}{
		"a pause":  {Limits{BodyGrace: 300 * time.Millisecond, BodyRate: 1 << 10}, 64 << 10, time.Minute, 0, 4 * time.Second}, // that much earns a minute
		"too long": {Limits{BodyGrace: time.Minute, BodyRate: 1 << 20, BodyTime: time.Second}, 1 << 10, 20 * time.Millisecond, 900 * time.Millisecond, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveWith(t, Config{Dir: t.TempDir(), Limits: c.limits})
			conn, err := net.Dial("tcp", s.host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			begin := time.Now()
			fmt.Fprintf(conn, "POST /v2/%s/blobs/uploads/?digest=sha256:%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: 10000000\r\n\r\n",
				repo, strings.Repeat("0", 64), s.host)
			go func() {
				for chunk := make([]byte, c.begin); ; chunk = chunk[:1] {
					if _, err := conn.Write(chunk); err != nil {
						return
					}
					time.Sleep(c.pause)
				}
			}()
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(conn)
			if took := time.Since(begin); took < c.least || took > c.limit {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A body that trickles in is cut off, wherever it goes; one that comes steadily is not.
func TestSlowBodies(t *testing.T) {
	s := serveWith(t, Config{Dir: t.TempDir(), Limits: Limits{BodyGrace: 300 * time.Millisecond, BodyRate: 1 << 20}})
	location := s.expect(http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/", nil).header.Get("Location")
	for name, request := range map[string]string{
		"manifest":                 "PUT /v2/" + repo + "/manifests/v1",
		"upload":                   "PATCH " + location,
		"upload, not intercepted":  "POST /v2/public/a/blobs/uploads/?digest=sha256:" + strings.Repeat("0", 64),
		"manifest not intercepted": "PUT /v2/public/a/manifests/v1",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", s.host)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			begin := time.Now()
			fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: 100000\r\n\r\n", request, s.host)
			go func() {
				for range 100 {
					if _, err := io.WriteString(c, "x"); err != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
			if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(c); err != nil {
				t.Logf("%v", err)
			}
			if took := time.Since(begin); took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	// Slower than the grace, and fast enough.
	pipe, w := io.Pipe()
	go func() {
		for range 10 {
			_, _ = w.Write(make([]byte, 128<<10))
			time.Sleep(100 * time.Millisecond)
		}
		w.Close()
	}()
	r := s.do("PATCH", s.expect(http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/", nil).header.Get("Location"), pipe)
	if r.status != http.StatusAccepted || r.header.Get("Range") != "0-1310719" {
		t.Errorf("a steady body: %d %v", r.status, r.header)
	}
}
