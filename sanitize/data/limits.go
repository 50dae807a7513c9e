package data

// What this package agrees to read. Genuine datasets stay far below; archives made to exhaust memory or time do not.
const (
	maxFiles      = 4 << 20   // files in a folder or archive
	maxName       = 4 << 10   // bytes of a file's name
	maxSide       = 16 << 10  // pixels
	maxPixels     = 64 << 20  // of one image, before resizing
	maxImageFile  = 64 << 20  // bytes of one encoded image
	maxScans      = 256       // of one progressive JPEG; encoders write about ten
	largePixels   = 4 << 20   // images above this are decoded one at a time
	maxDatasetMem = 8 << 30   // bytes of decoded pixels, where Options.MaxBytes is 0
	maxRatio      = 200       // unpacked to packed bytes of an archive, once it exceeds...
	ratioFree     = 512 << 20 // ...this many bytes
	gzipRatio     = 1032      // DEFLATE cannot expand more (RFC 1951: 258 bytes from 2 bits)
)
