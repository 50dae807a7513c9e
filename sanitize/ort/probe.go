package ort

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// The entry of every release of ONNX Runtime: this struct has not changed since API version 1.
typedef struct {
	const void *(*GetApi)(uint32_t version);
	const char *(*GetVersionString)(void);
} ApiBase;

static const ApiBase *api_base(void *entry) { return ((const ApiBase *(*)(void))entry)(); }
static const char *api_release(const ApiBase *b) { return b->GetVersionString(); }
*/
import "C"

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"
)

// probe loads the library at path and returns its release number. The library stays loaded. The binding would load it as well, but
// tells neither the release nor why it does not fit.
func probe(path string) (release string, err error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(name, C.RTLD_LAZY)
	if handle == nil {
		return "", errors.New(C.GoString(C.dlerror()))
	}
	symbol := C.CString("OrtGetApiBase")
	defer C.free(unsafe.Pointer(symbol))
	entry := C.dlsym(handle, symbol)
	if entry == nil {
		C.dlclose(handle)
		return "", errors.New("not an ONNX Runtime library (OrtGetApiBase is missing)")
	}
	release = C.GoString(C.api_release(C.api_base(entry)))
	if tooOld(release) {
		C.dlclose(handle)
		return release, fmt.Errorf("%w: it is release %s, %s or newer is needed", ErrVersion, release, Oldest)
	}
	return release, nil
}

// tooOld tells whether a release number is below Oldest: release 1.N offers the C API versions 1 to N.
func tooOld(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA != nil || errB != nil || a < 1 || a == 1 && b < apiVersion
}
