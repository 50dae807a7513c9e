package ort

import (
	"fmt"
	"math"
	"strings"

	binding "github.com/yalue/onnxruntime_go"
)

const minArena = 4 << 20

// LimitMemory bounds what the sessions created from now on hold in main memory, all together: they share one arena of at most that many bytes,
// and an allocation beyond it is ErrMemory. 0 lifts the limit: sessions have arenas of their own again. Sessions that exist keep what they have.
// The arena keeps what sessions free, for those after them. Less than minArena is taken for that: its first piece is 1 MiB whatever the limit.
func LimitMemory(bytes int64) error {
	if err := load(); err != nil {
		return err
	}
	library.Lock()
	defer library.Unlock()
	info, err := binding.GetMemoryInfo()
	if err != nil {
		return err
	}
	if library.limited {
		if err := binding.UnregisterAllocator(info); err != nil {
			return err
		}
		library.limited = false
	}
	if bytes <= 0 {
		return nil
	}
	cfg, err := binding.NewArenaCfg(int(min(max(bytes, minArena), math.MaxInt)), 1, -1, -1) // 1: grow by what is asked for, not by powers of two
	if err != nil {
		return err
	}
	defer cfg.Destroy()
	if err := binding.CreateAndRegisterAllocator(info, cfg); err != nil {
		return fmt.Errorf("an arena of %d bytes: %w", bytes, err)
	}
	library.limited = true
	return nil
}

func memoryLimited() bool {
	library.Lock()
	defer library.Unlock()
	return library.limited
}

// failure wraps an error of the runtime in kind, and in ErrMemory where an allocation failed. The runtime tells by its words alone: its status
// codes do not distinguish the two.
func failure(kind, err error) error {
	text := err.Error()
	for _, words := range []string{
		"Failed to allocate memory", "Available memory of", // the arena of any provider
		"bad_alloc", "bad allocation", // the C++ library
		"out of memory", "ALLOC_FAILED", "cudaErrorMemoryAllocation", // CUDA, HIP, cuBLAS, cuDNN
	} {
		if strings.Contains(text, words) {
			return fmt.Errorf("%w: %w: %w", kind, ErrMemory, err)
		}
	}
	return fmt.Errorf("%w: %w", kind, err)
}
