// Package codec reads and writes the messages that carry events as protobuf
// does, with code for just these messages.
package codec

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// New is the codec of gRPC's messages for either end. On the wire it is
// protobuf; all messages but those of events it leaves to the library. A
// message that is written must not have fields that its type does not know.
// Safe for concurrent use.
func New() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

type codec struct{ library encoding.CodecV2 }

func (codec) Name() string { return proto.Name }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	size := about(v)
	if size == 0 {
		return c.library.Marshal(v)
	}
	if mem.IsBelowBufferPoolingThreshold(size) {
		b, ok := write(make([]byte, 0, size), v)
		if !ok {
			return c.library.Marshal(v) // says what is wrong
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	buffer := pool.Get(size)
	b, ok := write((*buffer)[:0], v)
	*buffer = b // it may have grown
	if !ok {
		pool.Put(buffer)
		return c.library.Marshal(v)
	}
	return mem.BufferSlice{mem.NewBuffer(buffer, &pool)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if !known(v) {
		return c.library.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(&pool)
	defer buffer.Free()
	if read(buffer.ReadOnlyData(), v) {
		return nil
	}
	return c.library.Unmarshal(data, v) // begins anew, and says what is wrong
}
