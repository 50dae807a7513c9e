package queue

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"grindstone/internal/regular"
)

// Of a file, the object store keeps one message with its name and the id of its content, under metaSubject, and the content in chunks under
// chunkSubject (NATS ADR-20).
func metaSubject(name string) string {
	return "$O." + bucketFiles + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

func chunkSubject(id string) string { return "$O." + bucketFiles + ".C." + id }

// transferTime bounds the way of a file to or from the queue: a mebibyte a second, and some time for nodes that fail over. An
// acknowledgement that is lost with a node never comes: the NATS client waits for it as long as it is let.
func transferTime(size int64) time.Duration {
	return 10*time.Second + time.Duration(size>>20)*time.Second
}

const chunkSize = 128 << 10 // bytes, where the cluster takes messages of that size

// ofServer is the metadata of a file that names the server whose job it belongs to.
const ofServer = "server"

// The names of a job's files begin with its key.
func inFolder(key string) string         { return key + "/in" }
func outFolder(key, files string) string { return key + "/out" + files }
func inObject(j Job, name string) string { return inFolder(j.Key) + "/" + name }

// putIn stores the package's files for the worker.
func (q *Queue) putIn(ctx context.Context, j Job) error {
	return q.putFiles(ctx, j, inFolder(j.Key), filepath.Join(j.Dir, "in"), j.In)
}

// putFiles stores dir/NAME for the other side as to/NAME.
func (q *Queue) putFiles(ctx context.Context, j Job, to, dir string, names []string) error {
	if q.private {
		return nil
	}
	for _, name := range names {
		meta := jetstream.ObjectMeta{Name: to + "/" + name, Metadata: map[string]string{ofServer: j.Server}}
		if err := q.putFile(ctx, meta, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (q *Queue) putFile(ctx context.Context, meta jetstream.ObjectMeta, path string) error {
	f, err := regular.Open(path, math.MaxInt64) // a sanitizer wrote it
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transferTime(info.Size()))
	defer cancel()
	meta.Opts = &jetstream.ObjectMetaOptions{ChunkSize: uint32(min(chunkSize, q.conn.MaxPayload()-maxHeader))} //nolint:gosec // it is small
	_, err = q.files.Put(ctx, meta, f)
	return err
}

// getFiles brings what the other side stored as from/NAME to dir/NAME, if it has no more than so many bytes together. Their digests are checked.
func (q *Queue) getFiles(ctx context.Context, from, dir string, names []string, most int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir) // names come from the other side
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range names {
		size, err := q.getFile(ctx, from+"/"+name, root, name, most)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		most -= size
	}
	return nil
}

func (q *Queue) getFile(ctx context.Context, object string, root *os.Root, name string, most int64) (size int64, err error) {
	info, err := q.files.GetInfo(ctx, object)
	if err != nil {
		return 0, err
	}
	if info.Opts != nil && info.Opts.Link != nil { // to another file, of any size
		return 0, fmt.Errorf("%w: it is a link", ErrResult)
	}
	if info.Size > uint64(most) { //nolint:gosec // it is positive
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrResult, info.Size, most)
	}
	size = int64(info.Size) //nolint:gosec // as was just looked
	ctx, cancel := context.WithTimeout(ctx, transferTime(size))
	defer cancel()
	if chunks, err := q.fileStream.Info(ctx, jetstream.WithSubjectFilter(chunkSubject(info.NUID))); err != nil {
		return 0, err
	} else if n := chunks.State.Subjects[chunkSubject(info.NUID)]; n != uint64(info.Chunks) || size > 0 && n == 0 { // they would be waited for
		return 0, errFilesGone
	}
	from, err := q.files.Get(ctx, object)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	if err := root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o700); err != nil {
		return 0, err
	}
	to, err := root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := to.ReadFrom(io.LimitReader(from, size+1)) // its end has the digest looked at
	if n > size {
		err = fmt.Errorf("%w: it has more bytes than it says", ErrResult)
	}
	return size, errors.Join(err, to.Close())
}

// listFiles lists the files, and the marks that the store's own way of deleting leaves.
func (q *Queue) listFiles(ctx context.Context) ([]*jetstream.ObjectInfo, error) {
	list, err := q.files.List(ctx, jetstream.ListObjectsShowDeleted())
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, nil
	}
	return list, err
}

// deleteFile removes a file and leaves no mark of it. Its name goes last, for by it the rest is found.
func (q *Queue) deleteFile(ctx context.Context, o *jetstream.ObjectInfo) error {
	if err := q.fileStream.Purge(ctx, jetstream.WithPurgeSubject(chunkSubject(o.NUID))); err != nil {
		return err
	}
	return q.fileStream.Purge(ctx, jetstream.WithPurgeSubject(metaSubject(o.Name)))
}

// deleteFiles removes the files of a job.
func (q *Queue) deleteFiles(ctx context.Context, key string) error {
	if q.private {
		return nil
	}
	list, err := q.listFiles(ctx)
	for _, o := range list {
		if strings.HasPrefix(o.Name, key+"/") {
			err = errors.Join(err, q.deleteFile(ctx, o))
		}
	}
	return err
}

// sweepFiles removes the server's files that are not wanted, as those that a worker stored after its job was withdrawn, and chunks that
// belong to no file, as those that a process left that was killed while it stored one.
func (q *Queue) sweepFiles(ctx context.Context, server string, wanted func(key string) bool) error {
	list, err := q.listFiles(ctx)
	if err != nil {
		return err
	}
	for _, o := range list {
		key, _, _ := strings.Cut(o.Name, "/")
		if o.Deleted || o.Metadata[ofServer] == server && !wanted(key) {
			if err := q.deleteFile(ctx, o); err != nil {
				return err
			}
		}
	}
	return q.sweepChunks(ctx)
}

// sweepChunks removes chunks of no file that were there at the sweep before, and to which none has been added since: others may be those of a file that is being
// stored. Times would not tell, for clocks differ and jump.
func (q *Queue) sweepChunks(ctx context.Context) error {
	subjects, err := q.strayChunks(ctx)
	if err != nil {
		return err
	}
	before := q.stray
	q.stray = map[string]uint64{}
	for _, subject := range subjects {
		last, err := q.fileStream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		} else if err != nil {
			return err
		}
		if before[subject] != last.Sequence {
			q.stray[subject] = last.Sequence
			continue
		}
		if err := q.fileStream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return err
		}
	}
	return nil
}

// strayChunks returns the subjects of chunks that belong to no file.
func (q *Queue) strayChunks(ctx context.Context) (stray []string, err error) {
	info, err := q.fileStream.Info(ctx, jetstream.WithSubjectFilter(chunkSubject(">")))
	if err != nil {
		return nil, err
	}
	list, err := q.listFiles(ctx) // after the chunks: a file that is stored meanwhile has its name in it
	if err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for _, o := range list {
		files[chunkSubject(o.NUID)] = true
	}
	for subject := range info.State.Subjects {
		if !files[subject] {
			stray = append(stray, subject)
		}
	}
	return stray, nil
}

// leftFiles lists what there is in the object store.
func (q *Queue) leftFiles(ctx context.Context) (left []string, err error) {
	list, err := q.listFiles(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range list {
		left = append(left, "file "+o.Name)
	}
	stray, err := q.strayChunks(ctx)
	for _, subject := range stray {
		left = append(left, "chunks "+subject)
	}
	return left, err
}
