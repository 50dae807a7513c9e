package glyphs_test

import (
	"fmt"
	"log"

	"grindstone/demo/glyphs"
)

func ExampleGenerate() {
	d, err := glyphs.Generate(1000, 42)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d)
	fmt.Println(d.Counts())
	// Output:
	// glyphs: 1000 images, 32x32x3, 10 classes (A, C, E, H, K, O, S, T, W, X)
	// [100 100 100 100 100 100 100 100 100 100]
}
