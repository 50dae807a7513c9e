package data

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The digest does not depend on the order of images, and depends on everything else.
func TestDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(4, 40).Draw(t, "n")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		pixels, labels := make([]byte, 12*n), make([]int32, n)
		for i := range pixels {
			pixels[i] = byte(rng.Uint32())
		}
		for i := range labels {
			labels[i] = int32(i % 2)
		}
		build := func(classes []string, h, w int, pixels []byte, labels []int32) string {
			d, err := New("any name", classes, h, w, 3, pixels, labels)
			if err != nil {
				t.Fatal(err)
			}
			return d.Digest()
		}
		classes := []string{"a", "b"}
		want := build(classes, 2, 2, pixels, labels)

		order := rng.Perm(n)
		p2, l2 := make([]byte, 0, 12*n), make([]int32, 0, n)
		for _, i := range order {
			p2, l2 = append(p2, pixels[12*i:12*i+12]...), append(l2, labels[i])
		}
		if got := build(classes, 2, 2, p2, l2); got != want {
			t.Errorf("another order: %s, want %s", got, want)
		}
		p3 := slices.Clone(pixels)
		p3[rng.IntN(len(p3))] ^= 1
		l3 := slices.Clone(labels)
		l3[rng.IntN(n)] ^= 1
		for change, got := range map[string]string{
			"a pixel": build(classes, 2, 2, p3, labels),
			"a label": build(classes, 2, 2, pixels, l3),
			"a name":  build([]string{"a", "c"}, 2, 2, pixels, labels),
			"a shape": build(classes, 1, 4, pixels, labels),
			"a loss":  build(classes, 2, 2, pixels[12:], labels[1:]),
			"doubled": build(classes, 2, 2, append(slices.Clone(pixels), pixels[:12]...), append(slices.Clone(labels), labels[0])),
			"a class": build([]string{"a", "b", "c"}, 2, 2, pixels, labels),
		} {
			if got == want {
				t.Errorf("%s changed and the digest did not", change)
			}
		}
	})
}

// The value is fixed: attestations hold it.
func TestDigestValue(t *testing.T) {
	d, err := New("x", []string{"cat", "dog"}, 1, 1, 3, []byte{1, 2, 3, 4, 5, 6}, []int32{1, 0})
	if err != nil {
		t.Fatal(err)
	}
	const want = "sha256:40d895d50347a4a1f6c0883c50f481eb302a4b4829f5ab2363c0ab5dd3cd2037" // computed by hand from the definition
	if got := d.Digest(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
