package queue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A cluster may not answer yet when a server or worker starts: nodes that start with it, or too few of them for a majority. Then the queue is opened all
// the same, and looked for until it is there or Close is called. Meanwhile whoever asks for something waits, and Check says why.

const (
	firstTry  = 5 * time.Second  // for which Open waits
	laterTry  = 15 * time.Second // in the background, and for the server in this process
	mostPause = 30 * time.Second // between two tries
)

// hopeless tells trouble that time does not mend: credentials, certificates and files that are wrong, and a NATS server without JetStream.
func hopeless(err error) bool {
	var file *fs.PathError
	var certificate *tls.CertificateVerificationError
	var refused *jetstream.APIError
	switch {
	case errors.As(err, &file), errors.As(err, &certificate), errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted):
		return true
	case errors.As(err, &refused):
		return refused.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabled || refused.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabledForAccount ||
			refused.ErrorCode == jsErrCodeReplicasNotSupported
	}
	return false
}

// jsErrCodeReplicasNotSupported is NATS's error JSStreamReplicasNotSupportedErr: several replicas, and no cluster.
const jsErrCodeReplicasNotSupported jetstream.ErrorCode = 10074

// reach tries again and again to connect, until it succeeds or the queue is closed. err is why the first try failed.
func (q *Queue) reach(err error) {
	for pause := time.Second; ; pause = min(2*pause, mostPause) {
		failure := err
		q.unreached.Store(&failure)
		q.config.Log.Warn("the queue cannot be used yet; it is tried again", "error", err, "in", pause)
		select {
		case <-q.life.Done():
			return
		case <-time.After(pause):
		}
		if err = q.connect(q.life, laterTry); err == nil {
			q.config.Log.Info("the queue can be used now")
			close(q.reached)
			return
		}
	}
}

// wait returns when the queue has been reached for the first time, or says why it will not be.
func (q *Queue) wait(ctx context.Context) error {
	select {
	case <-q.reached:
		return nil
	case <-q.life.Done():
		return fmt.Errorf("%w: it is closed", ErrConnect)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// there reports why the queue has not been reached yet, or nil.
func (q *Queue) there() error {
	select {
	case <-q.reached:
		return nil
	default:
		return fmt.Errorf("%w: %w", ErrConnect, *q.unreached.Load())
	}
}
