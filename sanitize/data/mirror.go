package data

// Mirrored returns a copy of the dataset with the left and the right of every image exchanged.
func (d *Dataset) Mirrored() *Dataset {
	per, row := d.Size(), d.Width*d.Channels
	m := &Dataset{Name: d.Name + " mirrored", Classes: d.Classes, Height: d.Height, Width: d.Width, Channels: d.Channels, Labels: d.Labels,
		pixels: make([]byte, d.Len()*per)}
	for i := range d.Len() {
		from, _ := d.At(i)
		to := m.pixels[i*per : (i+1)*per]
		for y := range d.Height {
			for x := range d.Width {
				copy(to[y*row+(d.Width-1-x)*d.Channels:][:d.Channels], from[y*row+x*d.Channels:])
			}
		}
	}
	return m
}
