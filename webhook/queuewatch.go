package webhook

import (
	"context"
	"time"
)

const (
	queueLooks = 5 * time.Second // between two looks at the queue's store
	queueLost  = 3               // looks in a row that find it broken
)

// watchQueue looks after the queue in this process until ctx is done. When it does not store any more although the disk can be written, as
// after a time without room, lost is called with why: only a start of the server brings it back, and filled again from the admissions.
func (p *Pipeline) watchQueue(ctx context.Context, lost func(error)) {
	for broken := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(queueLooks):
		}
		err := p.Queue.CheckStore(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			broken = 0
		case p.store.Writable() != nil:
			p.Log.Warn("the queue and the disk cannot be written", "error", err)
			broken = 0
		default:
			if broken++; broken == queueLost {
				p.Log.Error("the queue has lost its store", "error", err)
				lost(err)
				return
			}
		}
	}
}
