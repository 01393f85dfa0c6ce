package unit_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/godbus/dbus/v5"
)

// This file is the bus between a fake and who asks it; fake_test.go is what it
// says.

func (f *fake) serve(c *client) {
	defer func() {
		f.mu.Lock()
		delete(f.clients, c)
		f.mu.Unlock()
		_ = c.Close()
	}()
	in := bufio.NewReader(c)
	if !handshake(c, in) {
		return
	}
	f.mu.Lock()
	f.dials++
	f.mu.Unlock()
	for {
		m, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.answer(c, m)
		f.mu.Unlock()
	}
}

// handshake lets everybody in (D-Bus specification, Authentication Protocol).
func handshake(c *client, in *bufio.Reader) bool {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		reply := ""
		switch words := strings.Fields(strings.TrimPrefix(line, "\x00")); {
		case len(words) == 1 && words[0] == "AUTH":
			reply = "REJECTED EXTERNAL"
		case words[0] == "AUTH":
			reply = "OK 0123456789abcdef0123456789abcdef"
		case words[0] == "BEGIN":
			return true
		default:
			reply = "ERROR"
		}
		if _, err := fmt.Fprint(c, reply+"\r\n"); err != nil {
			return false
		}
	}
}

func header[T any](m *dbus.Message, field dbus.HeaderField) T {
	v, _ := m.Headers[field].Value().(T)
	return v
}

func (f *fake) answer(c *client, m *dbus.Message) {
	method := header[string](m, dbus.FieldMember)
	f.calls[method]++
	if f.silent {
		return
	}
	body, err := f.call(c, method, header[dbus.ObjectPath](m, dbus.FieldPath), m.Body)
	reply := &dbus.Message{Type: dbus.TypeMethodReply, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(m.Serial()),
	}}
	if err != nil {
		reply.Type, reply.Body = dbus.TypeError, []any{err.Error()}
		reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(err.Error())
	}
	f.send(c, reply)
}

func (f *fake) signal(path dbus.ObjectPath, iface, member string, body ...any) {
	f.signalFrom(":1.0", path, iface, member, body...)
}

func (f *fake) signalFrom(sender string, path dbus.ObjectPath, iface, member string, body ...any) {
	for c := range f.clients {
		if c.subscribed {
			f.send(c, &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
				dbus.FieldSender: dbus.MakeVariant(sender),
			}})
		}
	}
}

func (f *fake) send(c *client, m *dbus.Message) {
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	if err := m.EncodeTo(c, binary.LittleEndian); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) {
		f.t.Logf("fake systemd: %v", err) // the other end has gone
	}
}
