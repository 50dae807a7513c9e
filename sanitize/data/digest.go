package data

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// Digest identifies the dataset's content, "sha256:" and 64 hex digits. It is the SHA-256 of
//
//	grindstone-dataset-v1 HEIGHT WIDTH CHANNELS CLASSES \n
//
// and then, for every class in the order of its label,
//
//	"NAME" COUNT \n  followed by the SHA-256 of each image's HWC bytes, sorted
//
// so that the container, its compression, the files' names and their order do not matter, while one changed pixel, a moved, missing
// or doubled image does. A view has the digest of the images that it shows. Images of a lossy format are hashed as decoded, so their
// digest is that of one decoder.
func (d *Dataset) Digest() string {
	sums := d.sums()
	byClass := make([][][]byte, len(d.Classes))
	for i := range sums {
		l := d.Labels[i]
		byClass[l] = append(byClass[l], sums[i][:])
	}
	h := sha256.New()
	fmt.Fprintf(h, "grindstone-dataset-v1 %d %d %d %d\n", d.Height, d.Width, d.Channels, len(d.Classes))
	for class, members := range byClass {
		fmt.Fprintf(h, "%q %d\n", d.Classes[class], len(members))
		slices.SortFunc(members, bytes.Compare)
		for _, m := range members {
			h.Write(m)
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// sums are the SHA-256 of each image's bytes.
func (d *Dataset) sums() [][sha256.Size]byte {
	sums := make([][sha256.Size]byte, d.Len())
	parallel(d.Len(), func(i int) {
		px, _ := d.At(i)
		sums[i] = sha256.Sum256(px)
	})
	return sums
}

// parallel calls f for 0 to n-1 on all cores.
func parallel(n int, f func(i int)) {
	const stride = 64
	var next sync.Mutex
	var wg sync.WaitGroup
	at := 0
	for range workers() {
		wg.Go(func() {
			for {
				next.Lock()
				from := at
				at += stride
				next.Unlock()
				if from >= n {
					return
				}
				for i := from; i < min(from+stride, n); i++ {
					f(i)
				}
			}
		})
	}
	wg.Wait()
}

func workers() int { return runtime.GOMAXPROCS(0) }
