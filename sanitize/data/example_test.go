package data_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"grindstone/sanitize/data"
)

// stripes are two classes of tiny images.
func stripes() *data.Dataset {
	const n, h, w = 20, 2, 2
	pixels, labels := make([]byte, 0, n*h*w*3), make([]int32, n)
	for i := range n {
		labels[i] = int32(i % 2)
		for p := range h * w {
			v := byte(255 * ((p/w*i + p%w*(i+1)) % 2)) // rows or columns
			pixels = append(pixels, v, v, byte(i))
		}
	}
	d, err := data.New("stripes", []string{"columns", "rows"}, h, w, 3, pixels, labels)
	if err != nil {
		log.Fatal(err)
	}
	return d
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "stripes")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "stripes.tar.gz")
	f, err := os.Create(path)
	if err != nil {
		log.Fatal(err)
	}
	if err := stripes().WriteTarGz(f); err != nil {
		log.Fatal(err)
	}
	if err := f.Close(); err != nil {
		log.Fatal(err)
	}

	d, err := data.Open(context.Background(), path, data.Options{Height: 2, Width: 2, Channels: 3})
	if err != nil {
		log.Fatal(err)
	}
	train, held, err := d.Split(0.2, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d)
	fmt.Println(train.Len(), "to train on,", held.Len(), "held out")
	fmt.Println(d.Digest() == stripes().Digest())
	// Output:
	// stripes: 20 images, 2x2x3, 2 classes (columns, rows)
	// 16 to train on, 4 held out
	// true
}

func ExampleNewFeeder() {
	d := stripes()
	p, err := data.Named("imagenet", data.NCHW, d.Height, d.Width, d.Channels)
	if err != nil {
		log.Fatal(err)
	}
	f := data.NewFeeder(context.Background(), d, p, data.FeedOptions{
		Batch: 8, StepsPerChunk: 2, Steps: 5,
		Augment: &data.Augment{Pad: 1, Cutout: 1},
		Seed:    1,
	})
	defer f.Close()
	for {
		c, err := f.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(c.Steps, "steps of", c.Batch, "images,", len(c.Images), "bytes")
		f.Recycle(c)
	}
	// Output:
	// 2 steps of 8 images, 192 bytes
	// 2 steps of 8 images, 192 bytes
	// 1 steps of 8 images, 96 bytes
}

func ExampleNormalization() {
	// torchvision: Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)) after ToTensor.
	p, err := data.Normalization{Mean: []float64{.5}, Std: []float64{.25}}.Preprocess(data.NCHW, 1, 1, 3)
	if err != nil {
		log.Fatal(err)
	}
	x := make([]float32, 3)
	p.Float(x, []byte{0, 255, 51})
	fmt.Printf("%.2f\n", x)
	// Output:
	// [-2.00 2.00 -1.20]
}
