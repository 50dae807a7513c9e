package sanitize

import (
	"fmt"

	"grindstone/sanitize/data"
)

// otherOrder says where classes of a dataset are others of the model: most images of a class are another one for it, which is in turn not what most of its own
// images are, and by these names the model would be clearly more accurate. Training would teach it the dataset's order: it would become more accurate, and be wrong
// for whoever uses it. "plane, car, bird" in alphabetical order leave three of CIFAR-10's classes in their places, "0, 1, 10, 2" two.
func otherOrder(predicted []int, d *data.Dataset) string {
	called := map[[2]int]int{} // label and prediction -> images
	for i, p := range predicted {
		_, label := d.At(i)
		called[[2]int{label, p}]++
	}
	most := make([]int, len(d.Classes)) // label -> what its images are for the model, clearly more often than the label
	for label := range most {
		most[label] = label
	}
	for k, n := range called {
		label, p := k[0], k[1]
		own, now := called[[2]int{label, label}], called[[2]int{label, most[label]}]
		if (n-own)*(n-own) < 4*(n+own) || n <= own { // two standard deviations: of few images errors are not clear
			continue
		}
		if n > now || n == now && most[label] != label && p < most[label] {
			most[label] = p
		}
	}
	hits, first := 0, -1
	for label, p := range most {
		if p != label && (p >= len(most) || most[p] == p) { // taken for a class that is in its place: an error of the model
			p = label
		}
		if p != label && first < 0 {
			first = label
		}
		hits += called[[2]int{label, p}]
	}
	if first < 0 || NewRate(hits, len(predicted)).Low <= accuracy(predicted, d).High {
		return ""
	}
	return fmt.Sprintf("most images of %q, class %d in the alphabetical order of the dataset's classes, are class %d for the model; name the classes so that their order is the model's",
		d.Classes[first], first, most[first])
}
