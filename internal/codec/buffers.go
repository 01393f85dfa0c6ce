package codec

import (
	"math/bits"
	"sync"
)

// Buffers are of two to the power of these.
const (
	leastExponent = 10 // 1 KiB: less is not pooled
	mostExponent  = 22 // 4 MiB: no message is larger
)

// buffers is the pool of what is written and copied here, a [mem.BufferPool]. That
// of the library clears what it gives, and gives 1 MiB for all that has more than
// 32 KiB, so that a batch of a thousand notifications cost more to clear than to
// write. Here each byte that is sent or read was written before.
type buffers struct{ free [mostExponent + 1]sync.Pool }

var pool buffers

// Get's buffer has whatever was in it.
func (p *buffers) Get(length int) *[]byte {
	e := max(leastExponent, bits.Len(uint(max(length, 1)-1)))
	if e > mostExponent {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.free[e].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, 1<<e)
	return &b
}

func (p *buffers) Put(b *[]byte) {
	if e := bits.Len(uint(cap(*b))) - 1; e >= leastExponent && e <= mostExponent {
		p.free[e].Put(b)
	}
}
