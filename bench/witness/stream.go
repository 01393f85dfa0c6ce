package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// A connection speaks gRPC (gRPC over HTTP2, PROTOCOL-HTTP2.md) with nothing
// around it: one goroutine reads. Ten thousand of the library's own clients would
// take most of the processors that the servers are measured on, in both systems.
type connection struct {
	conn   net.Conn
	framer *http2.Framer
	last   uint32 // number of the newest stream
	head   bytes.Buffer
	coder  *hpack.Encoder
	reader *hpack.Decoder
	unsaid uint32 // bytes that were read since the server heard of it
	part   []byte // of a message that is not whole yet
}

// window is what a server may send before it hears that it was read. No stream
// here has as much; a connection may.
const window = 1 << 20

// connect dials; config may be nil.
func connect(ctx context.Context, address string, config *tls.Config) (*connection, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if config != nil {
		sealed := tls.Client(conn, config)
		if err := sealed.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = sealed
	}
	c := &connection{conn: conn, framer: http2.NewFramer(conn, conn), reader: hpack.NewDecoder(4096, nil)}
	c.framer.SetReuseFrames()
	c.coder = hpack.NewEncoder(&c.head)
	_, err = conn.Write([]byte(http2.ClientPreface))
	err = errors.Join(err,
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		c.framer.WriteWindowUpdate(0, window))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// call begins a stream with its first message; whole: there is no other one. It
// must not run beside read.
func (c *connection) call(method string, message proto.Message, whole bool) error {
	body, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	c.last = c.last + 1 | 1 // 1, 3, 5: those of a client are odd (RFC 9113 5.1.1)
	c.head.Reset()
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":path", Value: method},
		{Name: ":authority", Value: "bench"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	} {
		if err := c.coder.WriteField(f); err != nil {
			return err
		}
	}
	err = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.last, BlockFragment: c.head.Bytes(), EndHeaders: true})
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body)))
	return errors.Join(err, c.framer.WriteData(c.last, whole, append(framed, body...)))
}

// read hands on each message, until take says that it has enough, or for good.
func (c *connection) read(take func(message []byte) (enough bool)) error {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			err = failure(c.reader, f)
		case *http2.RSTStreamFrame:
			return fmt.Errorf("the server resets the stream: %s", f.ErrCode)
		case *http2.GoAwayFrame:
			return fmt.Errorf("the server ends the connection: %s", f.DebugData())
		case *http2.DataFrame:
			enough := c.data(f.Data(), take)
			if c.unsaid += f.Length; c.unsaid > window/2 {
				err = c.framer.WriteWindowUpdate(0, c.unsaid)
				c.unsaid = 0
			}
			if enough {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// data takes a piece of a stream. Streams follow one another here.
func (c *connection) data(b []byte, take func([]byte) bool) (enough bool) {
	if len(c.part) > 0 {
		b = append(c.part, b...)
	}
	for len(b) >= 5 && len(b) >= 5+int(binary.BigEndian.Uint32(b[1:])) {
		end := 5 + int(binary.BigEndian.Uint32(b[1:]))
		enough = take(b[5:end]) || enough
		b = b[end:]
	}
	c.part = append(c.part[:0], b...)
	return enough
}

// failure is what the trailers of a call say.
func failure(decoder *hpack.Decoder, f *http2.HeadersFrame) error {
	fields, err := decoder.DecodeFull(f.HeaderBlockFragment())
	if err != nil {
		return err
	}
	status, message := "0", ""
	for _, h := range fields {
		switch h.Name {
		case "grpc-status":
			status = h.Value
		case "grpc-message":
			message = h.Value
		}
	}
	if status != "0" {
		return fmt.Errorf("the call fails with status %s: %s", status, message)
	}
	return nil
}

func (c *connection) close() { _ = c.conn.Close() }
