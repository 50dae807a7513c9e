// Package queue carries runs of the sanitizer from the servers that ask for them to the workers that do them, on NATS JetStream. It is
// the only package that knows NATS.
//
//	jobs    a work-queue stream: one message a job, gone when a worker acknowledges it. A worker that dies loses it to the next
//	        after the heartbeat's time
//	runs    a key-value bucket: how far each job is, how often it was begun, and its [Result]. The server that asked watches its
//	        key, and deletes it when it has the result; a worker whose key is deleted gives up
//	files   an object store: what goes into a job and comes out of it. Not used where server and worker share a folder
//
// The queue is no record of what has to be done: the server's admissions are. A queue that is lost is filled again.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Names in JetStream. The subject of a job is grindstone.jobs.LABEL.KEY.
const (
	streamJobs      = "GRINDSTONE_JOBS"
	bucketRuns      = "GRINDSTONE_RUNS"
	bucketFiles     = "GRINDSTONE_FILES"
	subjectJobs     = "grindstone.jobs"
	subjectProgress = "grindstone.progress"
)

// Config says where the queue is.
type Config struct {
	URL         string // of a NATS cluster, comma-separated; "" runs a server in this process
	Credentials string // path of a NATS credentials file; "" uses none
	Token       string // shared secret of the servers and workers; "" is none
	CA          string // path of the certificates to trust, PEM; "" trusts the system's
	Replicas    int    // of every stream in a cluster; default 1

	Dir    string // of the server in this process
	Listen string // host:port for workers of other processes; "" serves this process alone

	Heartbeat time.Duration // a job whose worker is silent for as long is given to another; default 30 s
	Log       *slog.Logger
}

// Errors of Open, for messages.
var (
	ErrServer  = errors.New("the queue's server cannot be run")
	ErrConnect = errors.New("the queue cannot be reached")
	ErrStore   = errors.New("the queue in this process cannot write")
)

// Queue is a connection to the queue. It may be used concurrently.
type Queue struct {
	config  Config
	owner   string // this process
	private bool   // nobody else uses it
	server  *server.Server
	conn    *nats.Conn
	js      jetstream.JetStream
	jobs    jetstream.Stream
	runs    jetstream.KeyValue
	files   jetstream.ObjectStore

	fileStream jetstream.Stream // that the object store keeps the files in

	asked sync.Map          // key -> Job that this process waits for
	stray map[string]uint64 // subjects of chunks that belonged to no file at the last sweep, and the last chunk of each

	reached   chan struct{}         // closed when what is above is set
	unreached atomic.Pointer[error] // why it is not yet
	reaching  sync.WaitGroup
	life      context.Context // done when it is closed
	end       context.CancelFunc
}

// Open connects to the queue, and runs its server if there is no URL. A cluster that does not answer now is waited for in the background, and a
// connection that breaks is made again, both for as long as it takes; what time does not mend is an error.
func Open(ctx context.Context, c Config) (*Queue, error) {
	if c.Heartbeat <= 0 {
		c.Heartbeat = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Replicas = max(1, c.Replicas)
	q := &Queue{config: c, owner: uuid.NewString(), private: c.URL == "" && c.Listen == "", reached: make(chan struct{})}
	q.life, q.end = context.WithCancel(context.WithoutCancel(ctx))
	if c.URL == "" {
		if err := q.serve(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrServer, err)
		}
	}
	limit := firstTry
	if q.server != nil {
		limit = laterTry
	}
	err := q.connect(ctx, limit)
	switch {
	case err == nil:
		close(q.reached)
	case q.server != nil || ctx.Err() != nil || hopeless(err):
		q.Close()
		return nil, fmt.Errorf("%w: %w", ErrConnect, err)
	default:
		q.unreached.Store(&err)
		q.reaching.Go(func() { q.reach(err) })
	}
	return q, nil
}

// connect makes the connection and the streams within the limit, and leaves nothing behind where it fails.
func (q *Queue) connect(ctx context.Context, limit time.Duration) (err error) {
	options := []nats.Option{
		nats.Name("grindstone"), nats.MaxReconnects(-1), nats.ReconnectWait(time.Second), nats.Token(q.config.Token),
		nats.IgnoreAuthErrorAbort(), // a cluster that has started with another configuration gets the right one
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // else it was closed here
				q.config.Log.Warn("the queue is out of reach", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			q.config.Log.Warn("the queue reports trouble", "error", err)
		}),
		nats.ReconnectHandler(func(*nats.Conn) { q.config.Log.Info("the queue is in reach again") }),
	}
	if q.config.Credentials != "" {
		options = append(options, nats.UserCredentials(q.config.Credentials))
	}
	if q.config.CA != "" {
		options = append(options, nats.RootCAs(q.config.CA))
	}
	url := q.config.URL
	if q.server != nil {
		url = ""
		options = append(options, nats.InProcessServer(q.server))
	}
	if q.conn, err = nats.Connect(url, options...); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			q.conn.Close()
		}
	}()
	if q.js, err = jetstream.New(q.conn); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err = q.setUp(limited); err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("JetStream does not answer within %v; perhaps too few of its nodes run for a majority: %w", limit, err)
	}
	return err
}

// setUp makes the streams, if nobody has.
func (q *Queue) setUp(ctx context.Context) (err error) {
	if q.jobs, q.runs, q.files, err = q.makeStreams(ctx); err != nil {
		return err
	}
	if !q.private {
		q.fileStream, err = q.js.Stream(ctx, "OBJ_"+bucketFiles)
		return err
	}
	// Whoever worked on the jobs of a private queue is dead: what is needed is asked for again. That a run was begun still counts; a result
	// whose server did not come to record it does not, for its files may be gone.
	if err := q.jobs.Purge(ctx); err != nil {
		return err
	}
	return q.forEachRun(ctx, func(key string, run Run) error {
		if run.Result == nil {
			return nil
		}
		return q.runs.Purge(ctx, key)
	})
}

// mend makes the streams again that are gone: somebody has deleted them, or NATS has lost its files. Whoever finds something wrong calls it before trying again.
func (q *Queue) mend(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, laterTry)
	defer cancel()
	if _, _, _, err := q.makeStreams(ctx); err != nil && ctx.Err() == nil {
		q.config.Log.Warn("the queue's streams cannot be made", "error", err)
	}
}

// makeStreams does not take replicas away that another process has asked for.
func (q *Queue) makeStreams(ctx context.Context) (jobs jetstream.Stream, runs jetstream.KeyValue, files jetstream.ObjectStore, err error) {
	replicas := q.config.Replicas
	if s, err := q.js.Stream(ctx, streamJobs); err == nil {
		replicas = max(replicas, s.CachedInfo().Config.Replicas)
	}
	jobs, err = q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamJobs, Description: "runs of the sanitizer that wait for a worker or have one", Subjects: []string{subjectJobs + ".>"},
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: replicas,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	runs, err = q.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: bucketRuns, Description: "how far the runs are", Storage: jetstream.FileStorage, Replicas: replicas,
	})
	if err != nil || q.private {
		return jobs, runs, nil, err
	}
	files, err = q.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: bucketFiles, Description: "models on their way to a worker and back", Storage: jetstream.FileStorage, Replicas: replicas,
	})
	return jobs, runs, files, err
}

// Private reports whether this process alone uses the queue.
func (q *Queue) Private() bool { return q.private }

// Address is where workers of other processes reach the server in this process, "" if they cannot.
func (q *Queue) Address() string {
	if q.server == nil || q.config.Listen == "" {
		return ""
	}
	return q.server.ClientURL()
}

// Connected reports whether there is a connection to the queue.
func (q *Queue) Connected() bool { return q.there() == nil && q.conn.IsConnected() }

// Check reports why the queue cannot be used now, or nil.
func (q *Queue) Check(ctx context.Context) error {
	if err := q.there(); err != nil {
		return err
	}
	if !q.conn.IsConnected() {
		return fmt.Errorf("%w: %v", ErrConnect, q.conn.Status())
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := q.jobs.Info(ctx)
	return err
}

// CheckStore reports ErrStore when the server in this process does not store any more: after an error of the disk, a full one for example,
// NATS refuses to write to a stream until it is started again. Of a cluster it reports nothing.
func (q *Queue) CheckStore(ctx context.Context) error {
	if q.server == nil {
		return nil
	}
	const nobodys = subjectJobs + ".PROBE.probe" // no worker can have such a label
	_, err := q.js.Publish(ctx, nobodys, nil)
	if err == nil {
		err = errors.Join(q.jobs.Purge(ctx, jetstream.WithPurgeSubject(nobodys)), q.runs.Purge(ctx, "probe"))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

// Depth is the number of jobs in the queue, with those that workers have.
func (q *Queue) Depth(ctx context.Context) (int, error) {
	if err := q.there(); err != nil {
		return 0, err
	}
	info, err := q.jobs.Info(ctx)
	if err != nil {
		return 0, err
	}
	return int(info.State.Msgs), nil
}

// Left lists what there is in the queue, for those who want to see that nothing is.
func (q *Queue) Left(ctx context.Context) (left []string, err error) {
	if err := q.wait(ctx); err != nil {
		return nil, err
	}
	if n, err := q.Depth(ctx); err != nil {
		return nil, err
	} else if n > 0 {
		left = append(left, fmt.Sprintf("%d jobs", n))
	}
	err = q.forEachRun(ctx, func(key string, _ Run) error {
		left = append(left, "run "+key)
		return nil
	})
	if err != nil || q.private {
		return left, err
	}
	files, err := q.leftFiles(ctx)
	return append(left, files...), err
}

// Close ends the connection, and the server in this process.
func (q *Queue) Close() {
	q.end()
	q.reaching.Wait()
	if q.conn != nil {
		q.conn.Close()
	}
	if q.server != nil {
		q.server.Shutdown()
		q.server.WaitForShutdown()
	}
}

// serve runs a NATS server in this process, with its files in the configured folder.
func (q *Queue) serve() error {
	if err := os.MkdirAll(q.config.Dir, 0o700); err != nil {
		return err
	}
	o := &server.Options{
		ServerName: "grindstone", JetStream: true, StoreDir: q.config.Dir, SyncAlways: true, NoSigs: true, NoLog: true,
		DontListen: q.config.Listen == "", Authorization: q.config.Token, MaxPayload: 1 << 20,
	}
	if q.config.Listen != "" {
		host, port, err := splitListen(q.config.Listen)
		if err != nil {
			return err
		}
		o.Host, o.Port = host, port
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.SetLoggerV2(natsLog{q.config.Log}, false, false, false)
	q.server = s
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return errors.New("it does not get ready within 30 s")
	}
	return nil
}

var label = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// ValidLabel reports whether a worker can have this label.
func ValidLabel(s string) bool { return label.MatchString(s) }
