package registry

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// tarEntry is a file in a tar archive, header by hand: in the format of v7, which has no magic number, unless set changes that.
func tarEntry(name, content string, set ...func(header []byte)) []byte {
	h := make([]byte, tarBlock)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00", len(content)))
	h[156] = tar.TypeReg
	for _, set := range set {
		set(h)
	}
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return concat(h, []byte(content), make([]byte, -len(content)&(tarBlock-1)))
}

// at sets bytes of a header.
func at(offset int, text string) func([]byte) {
	return func(h []byte) { copy(h[offset:], text) }
}

// ustar sets the magic number of POSIX.
var ustar = at(257, "ustar\x0000")

// pax is a header with one record.
func pax(kind byte, key, value string) []byte {
	record, n := "", len(key)+len(value)+3
	for record = fmt.Sprintf("%d %s=%s\n", n, key, value); len(record) != n; record = fmt.Sprintf("%d %s=%s\n", n, key, value) {
		n = len(record)
	}
	return tarEntry("pax", record, ustar, at(156, string(kind)))
}

var tarEnd = make([]byte, 2*tarBlock)

// What programs read as tar archives is read as one here, whatever the formats and attributes of its entries.
func TestModelsInOddTars(t *testing.T) {
	onnx := string(model("odd"))
	entry := tarEntry("m", onnx, ustar)
	for name, layer := range map[string][]byte{
		"v7":                            tarEntry("m", onnx),
		"v7, no type":                   tarEntry("m", onnx, at(156, "\x00")),
		"contiguous":                    tarEntry("m", onnx, at(156, "7")),
		"mode of a socket":              tarEntry("m", onnx, ustar, at(100, "0140644\x00")),
		"mode of a folder":              tarEntry("m", onnx, ustar, at(100, "0040755\x00")),
		"mode of a link":                tarEntry("m", onnx, ustar, at(100, "0120644\x00")),
		"name of a folder":              tarEntry("m/", onnx, ustar),
		"long name":                     concat(tarEntry("././@LongLink", "m", at(257, "ustar  \x00"), at(156, "L")), tarEntry("x", onnx, at(257, "ustar  \x00"))),
		"attributes":                    concat(pax('g', "comment", "c"), pax('x', "mtime", "1.5"), entry),
		"zstd behind a frame":           concat([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), zstdOf(t, entry)),
		"zstd behind the last of these": concat([]byte("\x5f\x2a\x4d\x18\x00\x00\x00\x00"), zstdOf(t, entry)),
		"zstd in two frames":            concat(zstdOf(t, entry[:700]), zstdOf(t, entry[700:])),
		"gzip in two members":           concat(gzipOf(t, entry[:700]), gzipOf(t, entry[700:])),
	} {
		found, err := inspectLayer(t, layer)
		if err != nil || !found.tar || strings.TrimSuffix(found.inside, "/") != "m" {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		listed, err := listArchive(bytes.NewReader(layer), 1<<20)
		if err != nil || len(listed) != 1 || !listed[0].model {
			t.Errorf("%s is listed as %+v, %v", name, listed, err)
		}
	}
}

// An archive that cannot be read to its end, or that programs read in different ways, is held: nobody can say that there is no model in it.
func TestUnclearArchives(t *testing.T) {
	onnx := string(model("hidden"))
	first, entry := tarEntry("a", "x", ustar), tarEntry("m", onnx, ustar)
	damaged := bytes.Clone(first)
	copy(damaged[148:], "0000000\x00")
	binarySum := tarEntry("m", onnx)
	copy(binarySum[148:], "\x80\x00\x00\x00\x00\x00\x00\x00")
	sum := 8 * int(' ')
	for i, b := range binarySum[:tarBlock] {
		if i < 148 || i >= 156 {
			sum += int(b)
		}
	}
	binarySum[154], binarySum[155] = byte(sum>>8), byte(sum)
	unclear := "programs read in different ways"
	for name, c := range map[string]struct {
		layer   []byte
		problem string
	}{
		"damaged first header":      {concat(damaged, entry, tarEnd), "damaged"},
		"damaged header":            {concat(first, damaged, entry, tarEnd), "damaged"},
		"binary checksum":           {concat(binarySum, tarEnd), "damaged"},
		"cut":                       {entry[:tarBlock+1], "damaged"},
		"cut header":                {concat(first, entry[:100]), "damaged"},
		"lone block of zeros":       {concat(first, tarEnd[:tarBlock], entry, tarEnd), "damaged"},
		"long attributes":           {concat(pax('x', "comment", strings.Repeat("v", 2<<20)), entry, tarEnd), "too long"},
		"long name":                 {concat(tarEntry("././@LongLink", strings.Repeat("v", 2<<20), at(257, "ustar  \x00"), at(156, "L")), entry, tarEnd), "too long"},
		"second archive":            {concat(first, tarEnd, entry, tarEnd), "more follows its end"},
		"second archive in gzip":    {gzipOf(t, concat(first, tarEnd, entry, tarEnd)), "more follows its end"},
		"second archive, a member":  {concat(gzipOf(t, concat(first, tarEnd)), gzipOf(t, entry)), "more follows its end"},
		"second archive, a frame":   {concat(zstdOf(t, concat(first, tarEnd)), zstdOf(t, entry)), "more follows its end"},
		"behind zeros":              {concat(tarEnd, tarEnd, entry, tarEnd), "begins with zeros"},
		"behind zeros in zstd":      {zstdOf(t, concat(tarEnd, entry)), "begins with zeros"},
		"behind gzip":               {concat(gzipOf(t, concat(first, tarEnd)), entry), "damaged"},
		"behind zstd":               {concat(zstdOf(t, concat(first, tarEnd)), entry), "damaged"},
		"cut gzip":                  {gzipOf(t, entry)[:15], "damaged"},
		"cut gzip, of one file":     {gzipOf(t, []byte("a text"))[:20], "damaged"},
		"cut zstd":                  {zstdOf(t, []byte(strings.Repeat(onnx, 9)))[:30], "damaged"},
		"old zstd":                  {[]byte("\x27\xb5\x2f\xfd of version 0.7"), "damaged"},
		"old sparse file":           {sparseTar(1 << 50), "sparse"},
		"sparse file":               {concat(pax('x', "GNU.sparse.major", "7"), entry, tarEnd), "sparse"},
		"size in attributes, empty": {concat(pax('x', "size", ""), tarEntry("a", string(entry), ustar), tarEnd), unclear},
		"size for all":              {concat(pax('g', "size", "0"), tarEntry("a", string(entry), ustar), tarEnd), unclear},
		"two sets of attributes":    {concat(pax('x', "size", "0"), pax('x', "mtime", "1"), tarEntry("a", string(entry), ustar), tarEnd), unclear},
		"two long names":            {concat(tarEntry("l", "a", at(156, "L")), tarEntry("l", "b", at(156, "L")), entry, tarEnd), unclear},
		"attributes, for others":    {concat(tarEntry("l", "a", at(156, "L")), pax('g', "comment", "c"), entry, tarEnd), unclear},
		"size behind a zero byte":   {concat(tarEntry("a", string(entry), ustar, at(124, fmt.Sprintf("\x00%010o\x00", len(entry)))), tarEnd), unclear},
		"folder with content":       {concat(tarEntry("a", "", ustar, at(124, "00000001000\x00"), at(156, "5")), tarEntry("b", string(entry), ustar), tarEnd), unclear},
		"link with content":         {concat(tarEntry("a", "", ustar, at(124, "00000001000\x00"), at(156, "1"), at(157, "b")), tarEntry("b", string(entry), ustar), tarEnd), unclear},
		"attributes of Solaris":     {concat(tarEntry("a", "9 size=0\n", at(156, "X")), tarEntry("b", string(entry)), tarEnd), unclear},
	} {
		found, err := inspectLayer(t, c.layer)
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %+v, %v, want %q", name, found, err, c.problem)
		}
	}
	s := serve(t, t.TempDir(), Limits{})
	if _, p := s.pushLayer(concat(damaged, entry, tarEnd)); !strings.Contains(p.Problem, "is an archive that cannot be read in full: it is damaged") {
		t.Errorf("pushed: %+v", p)
	}
}

// What only resembles an archive is none.
func TestNoArchives(t *testing.T) {
	for name, layer := range map[string][]byte{
		"empty":                 nil,
		"zeros":                 make([]byte, 5000),
		"weights behind zeros":  append(make([]byte, 5000), "\x3e\x9a\xbc\x01weights"...),
		"two bytes of gzip":     []byte("\x1f\x8b no gzip"),
		"end of a zip in text":  []byte("some text with PK\x05\x06 in it, and more than enough behind it"),
		"ustar in a short text": []byte(strings.Repeat("ustar", 60)),
		"empty tar":             tarEnd,
		"empty zip":             append([]byte("PK\x05\x06"), make([]byte, 18)...),
		"zstd of nothing":       []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"),
	} {
		if found, err := inspectLayer(t, layer); err != nil || found != (finding{}) {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
}

// FuzzWalkTar: what is read as an archive keeps its files when every block of it is looked at by its type and size alone, as simple programs do.
func FuzzWalkTar(f *testing.F) {
	f.Add(concat(tarEntry("a", "x"), tarEntry("m", "content", ustar), tarEnd))
	f.Add(concat(pax('x', "path", "other"), tarEntry("m", "content", ustar)))
	f.Add(concat(pax('g', "comment", "c"), tarEntry("././@LongLink", "long", at(257, "ustar  \x00"), at(156, "L")), tarEntry("m", "", at(156, "5"))))
	f.Add(concat(tarEntry("a", "", at(124, "00000001000\x00"), at(156, "5")), tarEntry("b", "x")))
	f.Fuzz(func(t *testing.T, archive []byte) {
		entries, sized := 0, false
		err := walkTar(bytes.NewReader(archive), func(h *tar.Header, _ io.Reader) error {
			entries++
			sized = sized || h.PAXRecords["size"] != ""
			return nil
		})
		if err != nil || sized {
			return
		}
		for rest := archive; len(rest) >= tarBlock && !allZeros(rest[:tarBlock]); {
			size, ok := octal(rest[124:136])
			if !ok {
				return // a binary one
			}
			if !strings.Contains("xLK", string(rest[156:157])) {
				entries--
			}
			rest = rest[min(int64(len(rest)), (size+2*tarBlock-1)/tarBlock*tarBlock):]
		}
		if entries != 0 {
			t.Fatalf("%d entries more than headers", entries)
		}
	})
}
