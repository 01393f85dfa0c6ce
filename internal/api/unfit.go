package api

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// lenient is a codec that lets a registration through whose text is not UTF-8: the
// registration is refused then, as others are, and its stream goes on with the rest.
// protobuf refuses the whole message, after which gRPC ends the stream
// (protobuf.dev, proto3: a string must contain UTF-8).
type lenient struct{ encoding.CodecV2 }

func (c lenient) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	if err == nil {
		return nil
	}
	if m, ok := v.(*belfryv1.SubscribeRequest); ok {
		if r := unfitRegister(data.Materialize()); r != nil {
			proto.Reset(m)
			m.Kind = &belfryv1.SubscribeRequest_Register{Register: r}
			return nil
		}
	}
	if m, ok := v.(proto.Message); ok { // the library does not say which field it is
		if bad := unfitField(data.Materialize(), m.ProtoReflect().Descriptor()); bad != "" {
			return fmt.Errorf("%w: %s is not UTF-8; encode it so", belfry.ErrUsage, bad)
		}
	}
	return err
}

// unfitMark is a field that no version of Registration has: it names the one that
// is not UTF-8.
const unfitMark = protowire.MaxValidNumber

// unfitRegister finds in a request the registration whose text is not UTF-8; nil if
// that is not all that is wrong with it.
func unfitRegister(request []byte) *belfryv1.Register {
	kinds := (&belfryv1.SubscribeRequest{}).ProtoReflect().Descriptor().Fields()
	body, ok := lastField(request, kinds.ByName("register").Number())
	if !ok {
		return nil
	}
	fields := (&belfryv1.Register{}).ProtoReflect().Descriptor().Fields()
	wanted := fields.ByName("registration")
	registration, ok := lastField(body, wanted.Number())
	if !ok {
		return nil
	}
	bad := unfitField(registration, wanted.Message())
	if bad == "" {
		return nil
	}
	r := &belfryv1.Register{Registration: &belfryv1.Registration{}}
	for b := body; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if number == fields.ByName("number").Number() && kind == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(b[n:])
			r.Number = uint32(v)
		}
		b = b[n+protowire.ConsumeFieldValue(number, kind, b[n:]):]
	}
	mark := protowire.AppendTag(nil, unfitMark, protowire.BytesType)
	r.Registration.ProtoReflect().SetUnknown(protowire.AppendString(mark, bad))
	return r
}

// lastField is the bytes of a field, which must stand in a message that is well formed.
func lastField(message []byte, wanted protowire.Number) (value []byte, ok bool) {
	for b := message; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		m := protowire.ConsumeFieldValue(number, kind, b[n:])
		if m < 0 {
			return nil, false
		}
		if number == wanted && kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b[n:])
			ok = true
		}
		b = b[n+m:]
	}
	return value, ok
}

// unfitField is the name of the first text that is not UTF-8, and its value as far as
// it can be shown; empty: there is none, or the message is not well formed.
func unfitField(message []byte, of protoreflect.MessageDescriptor) string {
	bad := ""
	for b := message; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		m := protowire.ConsumeFieldValue(number, kind, b[n:])
		if m < 0 {
			return ""
		}
		field := of.Fields().ByNumber(number)
		if field != nil && kind == protowire.BytesType && bad == "" {
			value, _ := protowire.ConsumeBytes(b[n:])
			switch {
			case field.Kind() == protoreflect.StringKind && !utf8.Valid(value):
				bad = fmt.Sprintf("%s %.64q", field.Name(), value)
			case field.Kind() == protoreflect.MessageKind:
				if within := unfitField(value, field.Message()); within != "" {
					bad = fmt.Sprintf("%s.%s", field.Name(), within)
				}
			}
		}
		b = b[n+m:]
	}
	return bad
}

// fit refuses a registration that lenient has let through.
func fit(r *belfryv1.Registration) error {
	bad, ok := lastField(r.ProtoReflect().GetUnknown(), unfitMark)
	if !ok {
		return nil
	}
	return &belfry.Error{Op: opRegister, Err: fmt.Errorf("%w: %s is not UTF-8; encode it so, or use a pattern for it", belfry.ErrUsage, bad)}
}
