package data

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Split divides the images at random, class by class, into a training part and a held-out part that holds the given share of every
// class, rounded, and at least one image of each. Both are views. The same seed gives the same split. All copies of an image come into the
// same part: what is held out is in training under no name and no label.
func (d *Dataset) Split(share float64, seed uint64) (train, held *Dataset, err error) {
	if !(share > 0 && share < 1) {
		return nil, nil, &Error{Path: d.Name, Err: fmt.Errorf("%w: a held-out share of %v is not between 0 and 1", ErrOption, share)}
	}
	first := d.firsts()
	var single []int32 // the first of each image
	for i, f := range first {
		if f == int32(i) {
			single = append(single, f)
		}
	}
	once := d.view(single)
	counts := once.Counts()
	present := 0
	for class, n := range counts {
		if n == 1 {
			return nil, nil, &Error{Path: d.Name, Err: fmt.Errorf("%w: class %q has a single image, which cannot be split", ErrClasses, d.Classes[class])}
		}
		present += btoi(n > 0)
	}
	total := int(math.Round(share * float64(once.Len())))
	quota := apportion(counts, min(max(total, present), once.Len()-present))
	for class, n := range counts { // leave something to train on
		quota[class] = min(quota[class], max(n-1, 0))
	}
	chosen := make([]bool, d.Len())
	for _, i := range choose(once.Labels, quota, seed) {
		chosen[single[i]] = true
	}
	var parts [2][]int32
	for i, f := range first {
		to := btoi(chosen[f])
		parts[to] = append(parts[to], int32(i))
	}
	train, held = d.view(parts[0]), d.view(parts[1])
	train.Name, held.Name = d.Name+" (training)", d.Name+" (held out)"
	return train, held, nil
}

// Without is the dataset less the images that another one has too, whatever their labels.
func (d *Dataset) Without(other *Dataset) *Dataset {
	has := map[[sha256.Size]byte]bool{}
	for _, sum := range other.sums() {
		has[sum] = true
	}
	var rows []int32
	for i, sum := range d.sums() {
		if !has[sum] {
			rows = append(rows, int32(i))
		}
	}
	if len(rows) == d.Len() {
		return d
	}
	return d.view(rows)
}

// firsts gives for each image the first one with the same pixels.
func (d *Dataset) firsts() []int32 {
	first := make([]int32, d.Len())
	seen := make(map[[sha256.Size]byte]int32, d.Len())
	for i, sum := range d.sums() {
		f, ok := seen[sum]
		if !ok {
			f = int32(i)
			seen[sum] = f
		}
		first[i] = f
	}
	return first
}

// Subset is a view of n images (all of them where there are fewer), drawn at random, class by class in the classes' proportions.
// The same seed gives the same images, which stay in their order.
func (d *Dataset) Subset(n int, seed uint64) *Dataset {
	if n >= d.Len() {
		return d
	}
	return d.view(choose(d.Labels, apportion(d.Counts(), max(n, 0)), seed))
}

// Shuffled is the dataset in another order: a folder's images come class by class.
func (d *Dataset) Shuffled(seed uint64) *Dataset {
	rows := make([]int32, d.Len())
	for i, row := range random(seed).Perm(len(rows)) {
		rows[i] = int32(row)
	}
	return d.view(rows)
}

// view is the dataset reduced to some of its rows.
func (d *Dataset) view(rows []int32) *Dataset {
	v := *d
	v.Labels = pick(d.Labels, rows)
	if d.rows == nil {
		v.rows = rows
	} else {
		v.rows = pick(d.rows, rows)
	}
	return &v
}

// stratified chooses n rows in the classes' proportions, at least one of each class.
func stratified(labels []int32, classes, n int, seed uint64) ([]int32, error) {
	counts := make([]int, classes)
	for _, l := range labels {
		counts[l]++
	}
	present := 0
	for _, c := range counts {
		present += btoi(c > 0)
	}
	if n < present {
		return nil, fmt.Errorf("%w: a limit of %d images for %d classes; keep one of each or more", ErrOption, n, present)
	}
	return choose(labels, apportion(counts, n), seed), nil
}

// apportion divides n among the classes by the method of largest remainders. Where n allows it, every class that has images gets
// one or more.
func apportion(counts []int, n int) []int {
	total, present := 0, 0
	for _, c := range counts {
		total += c
		present += btoi(c > 0)
	}
	quota := make([]int, len(counts))
	if total == 0 {
		return quota
	}
	n = min(n, total)
	order := make([]int, 0, present) // classes by remainder
	remainder := make([]int, len(counts))
	given := 0
	for class, c := range counts {
		if c == 0 {
			continue
		}
		quota[class], remainder[class] = n*c/total, n*c%total
		if quota[class] == 0 && n >= present {
			quota[class], remainder[class] = 1, 0
		}
		given += quota[class]
		order = append(order, class)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainder[b], remainder[a]) })
	for i := 0; given < n; i++ {
		if class := order[i%present]; quota[class] < counts[class] {
			quota[class]++
			given++
		}
	}
	for given > n { // the ones guaranteed above came from the largest shares
		largest := slices.Index(quota, slices.Max(quota))
		quota[largest]--
		given--
	}
	return quota
}

// choose draws quota[class] rows of every class and returns them in ascending order.
func choose(labels []int32, quota []int, seed uint64) []int32 {
	rng := random(seed)
	byClass := make([][]int32, len(quota))
	for i, l := range labels {
		byClass[l] = append(byClass[l], int32(i))
	}
	var rows []int32
	for class, members := range byClass {
		rng.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		rows = append(rows, members[:quota[class]]...)
	}
	slices.Sort(rows)
	return rows
}

// random is the package's generator: reproducible, and never used for secrets.
func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6772696e64)) }
