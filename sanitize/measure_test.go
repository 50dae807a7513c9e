package sanitize

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
)

// TestWilson: intervals that Newcombe published (Statistics in Medicine 17, 1998, table I, method 3), and the ends.
func TestWilson(t *testing.T) {
	for _, tt := range []struct {
		hits, count int
		low, high   float64
	}{
		{81, 263, .2553, .3662}, {15, 148, .0624, .1605}, {0, 20, 0, .1611}, {1, 29, .0061, .1718},
		{20, 20, 1 - .1611, 1}, {28, 29, 1 - .1718, 1 - .0061},
	} {
		r := NewRate(tt.hits, tt.count)
		if math.Abs(r.Low-tt.low) > 6e-5 || math.Abs(r.High-tt.high) > 6e-5 || r.Value != float64(tt.hits)/float64(tt.count) || r.Hits != tt.hits || r.Count != tt.count {
			t.Errorf("%d of %d: %+v, want %v to %v", tt.hits, tt.count, r, tt.low, tt.high)
		}
	}
	if r := NewRate(0, 0); r.Low != 0 || r.High != 1 || r.Value != 0 {
		t.Errorf("nothing measured: %+v", r)
	}
	if s := NewRate(1, 4).String(); !strings.HasPrefix(s, "25.00 %") || !strings.HasSuffix(s, "(1 of 4)") {
		t.Error(s)
	}
}

func TestAtChance(t *testing.T) {
	for _, tt := range []struct {
		hits, count int
		chance      float64
		want        bool
	}{
		{100, 1000, .1, true},  // chance
		{140, 1000, .1, true},  // above chance for sure, but not by half
		{160, 1000, .1, false}, // clearly above
		{3, 20, .1, true},      // too few images to tell
		{9, 10, .1, false},
		{55, 100, .5, true},
		{70, 100, .5, false}, // of two classes, as hard tasks have it
		{0, 0, .1, true},
		{2, 1000, .001, true}, // the interval reaches chance
		{6, 1000, .001, false},
		{900, 1000, .9, true},
		{960, 1000, .9, false},
	} {
		if got := atChance(NewRate(tt.hits, tt.count), tt.chance); got != tt.want {
			t.Errorf("%d of %d, chance %v: %v", tt.hits, tt.count, tt.chance, got)
		}
	}
}

// TestGuessing: where one class has most of the images, saying it of all of them is guessing, however often it is right.
func TestGuessing(t *testing.T) {
	labels := make([]int32, 1000)
	for i := range 50 {
		labels[i] = 1
	}
	d, err := data.New("rare", []string{"healthy", "ill"}, 1, 1, 1, make([]byte, 1000), labels)
	if err != nil {
		t.Fatal(err)
	}
	constant, useful, none := make([]int, 1000), make([]int, 1000), make([]int, 1000)
	for i := range 40 { // of 50
		useful[i] = 1
	}
	for i := range none {
		none[i] = i % 2
	}
	for name, tt := range map[string]struct {
		predicted []int
		chance    float64
		at        bool
	}{"always the same": {constant, .95, true}, "four of five found": {useful, .95*.96 + .05*.04, false}, "a coin": {none, .5, true}} {
		e := Evaluation{CDA: accuracy(tt.predicted, d), chance: guessing(tt.predicted, d)}
		if math.Abs(e.chance-tt.chance) > 1e-12 || e.AtChance() != tt.at {
			t.Errorf("%s: CDA %v, chance %v, at chance: %v", name, e.CDA, e.chance, e.AtChance())
		}
	}
}

func TestMeanDistance(t *testing.T) {
	a := []float32{3, 4, 0, 1, 1, 1}
	b := []float32{0, 0, 0, 1, 1, 3}
	if got := meanDistance(a, b, 3); got != (5+2)/2. {
		t.Errorf("%v, want 3.5", got)
	}
	if got := meanDistance(a, b, 2); math.Abs(got-(5+0+2)/3.) > 1e-12 {
		t.Errorf("%v, want 7/3", got)
	}
	if got := meanDistance(nil, nil, 3); got != 0 {
		t.Errorf("no rows: %v", got)
	}
}

// TestUnreachable: features behind a ReLU cannot become negative, so the targets' negative part is out of reach.
func TestUnreachable(t *testing.T) {
	nonNegative, targets := []float32{1, 2, 0, 5}, []float32{-3, -4, 7, -1}
	if got := unreachable(nonNegative, targets, 2); got != (5+1)/2. {
		t.Errorf("%v, want 3", got)
	}
	if got := unreachable([]float32{1, 2, -0.1, 5}, targets, 2); got != 0 {
		t.Errorf("features that can be negative: %v", got)
	}
	if got := unreachable(nonNegative, nonNegative, 2); got != 0 {
		t.Errorf("targets that a permutation makes: %v", got)
	}
	if targets[0] != -3 {
		t.Error("the targets were changed")
	}
}

func TestSchedule(t *testing.T) {
	for _, tt := range []struct {
		name         string
		o            Options
		images       int
		steps, grind int
	}{
		{"few images: the least number of steps", Options{Batch: 128}, 5000, DefaultSteps, DefaultSteps * 2 / 5},
		{"CIFAR-10: five epochs are 1,954 steps", Options{Batch: 128}, 50000, DefaultSteps, DefaultSteps * 2 / 5},
		{"many images: five epochs", Options{Batch: 128}, 128000, 5000, 2000},
		{"a part of a batch counts as a step", Options{Batch: 100, Epochs: 1}, 250, 3, 1},
		{"epochs", Options{Batch: 128, Epochs: 2.5}, 1280, 25, 10},
		{"grinding epochs", Options{Batch: 128, Epochs: 4, GrindEpochs: 1}, 1280, 40, 10},
		{"grinding alone", Options{Batch: 128, Epochs: 2, GrindEpochs: 2}, 1280, 20, 20},
		{"steps", Options{Batch: 128, Steps: new(100)}, 5000, 100, 40},
		{"no steps", Options{Batch: 128, Steps: new(0)}, 5000, 0, 0},
		{"grinding steps", Options{Batch: 128, Steps: new(100), GrindSteps: 70}, 5000, 100, 70},
	} {
		if steps, grind := tt.o.schedule(tt.images); steps != tt.steps || grind != tt.grind {
			t.Errorf("%s: %d steps, %d of them grinding, want %d and %d", tt.name, steps, grind, tt.steps, tt.grind)
		}
	}
}

// TestOtherOrder: classes in another order are told from a model's errors.
func TestOtherOrder(t *testing.T) {
	names := make([]string, 12)
	labels := make([]int32, 1200)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	slices.Sort(names) // 0, 1, 10, 11, 2, ...
	for i := range labels {
		labels[i] = int32(i % 12)
	}
	d, err := data.New("digits", names, 1, 1, 1, make([]byte, 1200), labels)
	if err != nil {
		t.Fatal(err)
	}
	predict := func(right int, class func(label int) int) []int { // of each ten images
		predicted := make([]int, len(labels))
		for i, l := range labels {
			if predicted[i] = class(int(l)); i/12%10 >= right {
				predicted[i] = (predicted[i] + i/12) % 12
			}
		}
		return predicted
	}
	same := func(label int) int { return label }
	for name, tt := range map[string]struct {
		predicted []int
		says      string
	}{
		"the model's order":       {predict(9, same), ""},
		"a bad model":             {predict(3, same), ""},
		"by number":               {predict(9, func(label int) int { n, _ := strconv.Atoi(names[label]); return n }), `"10", class 2 in`},
		"by number, a bad model":  {predict(4, func(label int) int { n, _ := strconv.Atoi(names[label]); return n }), `"10", class 2 in`},
		"two exchanged":           {predict(9, func(label int) int { return []int{0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11}[label] }), `"2", class 4 in`},
		"one taken for another":   {predict(9, func(label int) int { return []int{0, 1, 2, 3, 5, 5, 6, 7, 8, 9, 10, 11}[label] }), ""},
		"always the same":         {predict(10, func(int) int { return 3 }), ""},
		"a model of more classes": {predict(9, func(label int) int { return label + 12 }), ""},
	} {
		if got := otherOrder(tt.predicted, d); (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%s: %q, want %q", name, got, tt.says)
		}
	}
}

// TestOrderOfManyClasses: of few images a class, errors are not taken for another order.
func TestOrderOfManyClasses(t *testing.T) {
	const classes = 1000
	random := rand.New(rand.NewPCG(1, 1))
	names := make([]string, classes)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	for _, each := range []int{1, 2, 3, 5, 10} {
		labels, predicted, exchanged := make([]int32, classes*each), make([]int, classes*each), make([]int, classes*each)
		for i := range labels {
			labels[i], predicted[i] = int32(i%classes), i%classes
			if random.IntN(10) < 3 { // confused with one of its few likes
				predicted[i] = (i%classes ^ 1<<random.IntN(2)) % classes
			}
			exchanged[i] = (predicted[i] + classes/4) % classes
			if i%classes < classes/4 { // these are in their places
				exchanged[i] = predicted[i]
			}
		}
		d, err := data.New("many", names, 1, 1, 1, make([]byte, len(labels)), labels)
		if err != nil {
			t.Fatal(err)
		}
		if got := otherOrder(predicted, d); got != "" {
			t.Errorf("%d images a class: %s", each, got)
		}
		if got := otherOrder(exchanged, d); got == "" && each == 10 {
			t.Errorf("%d images a class, three quarters of the classes moved: nothing found", each)
		}
	}
}

// TestAugment: crop and cutout leave something of a narrow image.
func TestAugment(t *testing.T) {
	for _, tt := range []struct {
		height, width int
		want          data.Augment
	}{{32, 32, data.Augment{Pad: 4, Cutout: 16}}, {128, 16, data.Augment{Pad: 2, Cutout: 8}}, {16, 128, data.Augment{Pad: 2, Cutout: 8}}} {
		r := &run{c: &classifier.Classifier{Height: tt.height, Width: tt.width}}
		if got := r.augment(); got != tt.want {
			t.Errorf("%dx%d: %+v", tt.height, tt.width, got)
		}
	}
}

func TestOptions(t *testing.T) {
	good := Options{Model: "m.onnx", Data: "images"}
	o := good
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	if o.Transformation != Permute || o.Batch != 128 || o.HoldOut != 0.1 || *o.Momentum != 0.9 || *o.WeightDecay != 5e-4 || o.Steps != nil || o.AlphaGrind != 0.8 || o.AlphaRestore != 0.2 || o.Angle != math.Pi/2 {
		t.Errorf("defaults: %+v", o)
	}
	o.Progress(Progress{}) // must not be nil

	for says, change := range map[string]func(o *Options){
		"no model given":                    func(o *Options) { o.Model = "" },
		"--data":                            func(o *Options) { o.Data = "" },
		`"reflect"`:                         func(o *Options) { o.Transformation = "reflect" },
		"held-out share":                    func(o *Options) { o.HoldOut = 1 },
		"not NaN":                           func(o *Options) { o.HoldOut = math.NaN() },
		"2 to 65536 images, not 1":          func(o *Options) { o.Batch = 1 },
		"images, not 1000000000000":         func(o *Options) { o.Batch = 1e12 },
		"1073741824 at most":                func(o *Options) { o.Epochs = 1e300 },
		"steps and epochs":                  func(o *Options) { o.Steps = new(1 << 40) },
		"cannot be negative":                func(o *Options) { o.Steps = new(-1) },
		"must be finite":                    func(o *Options) { o.Epochs = math.Inf(1) },
		"3 grinding epochs":                 func(o *Options) { o.Epochs, o.GrindEpochs = 2, 3 },
		"(--epochs)":                        func(o *Options) { o.GrindEpochs = 3 },
		"9 grinding steps":                  func(o *Options) { o.Steps, o.GrindSteps = new(8), 9 },
		"5 grinding steps":                  func(o *Options) { o.GrindSteps = 5 },
		"not both":                          func(o *Options) { o.Steps, o.Epochs = new(0), 9 },
		"rate must be positive":             func(o *Options) { o.LearningRate = -0.1 },
		"the learning rate":                 func(o *Options) { o.LearningRate = math.NaN() },
		"alpha lies between":                func(o *Options) { o.AlphaGrind = 1.5 },
		"alpha":                             func(o *Options) { o.AlphaRestore = -0.5 },
		"samples":                           func(o *Options) { o.Samples = -1 },
		"momentum lies between 0 and 1":     func(o *Options) { o.Momentum = new(1.) },
		"weight decay cannot be -1":         func(o *Options) { o.WeightDecay = new(-1.) },
		"the angle cannot be NaN":           func(o *Options) { o.Angle = math.NaN() },
		"no model given\ninvalid options: ": func(o *Options) { o.Model, o.Data = "", "" }, // all problems at once
	} {
		o := good
		change(&o)
		if err := o.setDefaults(); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one with %q", err, says)
		}
	}
}
