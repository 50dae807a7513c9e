package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParsePreprocess reads a preprocessing as people write it: a name that Named knows, or the terms of training frameworks,
//
//	mean=0.4914,0.4822,0.4465 std=0.2471,0.2435,0.2616 range=0,1 order=bgr
//
// where each part may be left out (mean 0, std 1, range 0,1, order rgb). Mean and std are one number or one a channel, in the model's
// channel order. The error names the part.
func ParsePreprocess(text string, layout Layout, h, w, c int) (Preprocess, error) {
	if !strings.Contains(text, "=") {
		return Named(text, layout, h, w, c)
	}
	n := Normalization{Low: 0, High: 1}
	for part := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(part, "=")
		var numbers []float64
		var err error
		if key != "order" {
			if numbers, err = parseNumbers(value); err != nil {
				return Preprocess{}, fmt.Errorf("%w: preprocessing part %q: %w", ErrOption, part, err)
			}
		}
		switch {
		case key == "mean":
			n.Mean = numbers
		case key == "std":
			n.Std = numbers
		case key == "range" && len(numbers) == 2:
			n.Low, n.High = numbers[0], numbers[1]
		case key == "order" && value == "bgr":
			n.BGR = true
		case key == "order" && value == "rgb":
		default:
			return Preprocess{}, fmt.Errorf("%w: preprocessing part %q: expected mean=, std=, range=LOW,HIGH or order=rgb|bgr", ErrOption, part)
		}
	}
	p, err := n.Preprocess(layout, h, w, c)
	p.Name = text
	return p, err
}

func parseNumbers(list string) ([]float64, error) {
	var numbers []float64
	for s := range strings.SplitSeq(list, ",") {
		v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%q is not a finite number", s)
		}
		numbers = append(numbers, v)
	}
	return numbers, nil
}
