package disk

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/repository"
)

// A buffer is memory as direct I/O wants it: aligned (open(2)). The caller's own
// is never given to the kernel, which may use it long after the deadline.
type buffer struct {
	memory []byte
	bytes  []byte
	mapped []byte // of a huge page; nil: the memory is Go's
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

const (
	hugePage = 2 << 20 // of x86-64 and arm64
	hugeFrom = 64 << 10
)

// hugeBuffers are kept for the next transfer, or given back to the kernel. As
// many are kept as a node has disks that it reads one after the other, and room.
var hugeBuffers = make(chan *buffer, 2)

func take(size int) *buffer {
	if b := takeHuge(size); b != nil {
		b.bytes = b.memory[:size]
		return b
	}
	b := buffers.Get().(*buffer)
	if cap(b.memory) < size+repository.BlockSize {
		b.memory = make([]byte, size+repository.BlockSize)
	}
	b.memory = b.memory[:cap(b.memory)]
	skip := 0
	if over := int(uintptr(unsafe.Pointer(&b.memory[0])) % repository.BlockSize); over > 0 {
		skip = repository.BlockSize - over
	}
	b.bytes = b.memory[skip : skip+size]
	return b
}

// takeHuge is memory in one piece also for the disk: the records of 64 hosts are
// 129 pages, of each of which a request tells the disk where it is, and on a
// virtual disk that takes as long as reading them (bench/README.md). Nil: the
// size is not of the kind, or the kernel gives none.
func takeHuge(size int) *buffer {
	if size < hugeFrom || size > hugePage {
		return nil
	}
	select {
	case b := <-hugeBuffers:
		return b
	default:
	}
	all, err := unix.Mmap(-1, 0, 2*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil
	}
	skip := (hugePage - int(uintptr(unsafe.Pointer(&all[0]))%hugePage)) % hugePage
	memory := all[skip : skip+hugePage]
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // without it: as many pages as usual
	return &buffer{memory: memory, mapped: all}
}

func (b *buffer) give() {
	if b.mapped == nil {
		buffers.Put(b)
		return
	}
	select {
	case hugeBuffers <- b:
	default:
		_ = unix.Munmap(b.mapped)
	}
}
