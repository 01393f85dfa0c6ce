package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// listTries bounds how often a list is asked for again that was overtaken by a
// change.
const listTries = 10

// errInterrupted says that something changed while it was listed.
var errInterrupted = errors.New("it changed each time while it was read")

// rtextFilterSkipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: an
// answer without counters.
const rtextFilterSkipStats = 1 << 3

// Addresses are all of this network namespace, of IPv4 and IPv6, in the kernel's
// order. The connection is one of unix.NETLINK_ROUTE, in no group.
func Addresses(conn *netlink.Conn) ([]Address, error) {
	all, err := list(conn, unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(data []byte) (Address, bool, error) {
		if len(data) > 0 && data[0] != unix.AF_INET && data[0] != unix.AF_INET6 {
			return Address{}, false, nil // of a family that knows other addresses
		}
		a, err := ParseAddress(data)
		return a, true, err
	})
	if err != nil {
		return nil, fmt.Errorf("list of addresses: %w", err)
	}
	return all, nil
}

// Interfaces are all of this network namespace, in the kernel's order. The
// connection is as for Addresses.
func Interfaces(conn *netlink.Conn) ([]Interface, error) {
	question, err := interfaceQuestion(0)
	if err != nil {
		return nil, err
	}
	all, err := list(conn, unix.RTM_GETLINK, question, func(data []byte) (Interface, bool, error) {
		i, err := ParseInterface(data)
		return i, true, err
	})
	if err != nil {
		return nil, fmt.Errorf("list of interfaces: %w", err)
	}
	return all, nil
}

// InterfaceAt reads one interface; the error wraps ENODEV if there is none. The
// connection is as for Addresses.
func InterfaceAt(conn *netlink.Conn, index int) (Interface, error) {
	question, err := interfaceQuestion(index)
	if err != nil {
		return Interface{}, err
	}
	answer, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   question,
	})
	if err != nil {
		return Interface{}, fmt.Errorf("interface %d: %w", index, err)
	}
	if len(answer) != 1 {
		return Interface{}, fmt.Errorf("interface %d: %d answers instead of one: %w", index, len(answer), unix.EPROTO)
	}
	return ParseInterface(answer[0].Data)
}

// interfaceQuestion is the data of RTM_GETLINK; 0 is the index of all.
func interfaceQuestion(index int) ([]byte, error) {
	data := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(data[4:], uint32(index))
	attributes := netlink.NewAttributeEncoder()
	attributes.Uint32(unix.IFLA_EXT_MASK, rtextFilterSkipStats)
	encoded, err := attributes.Encode()
	return append(data, encoded...), err
}

// list asks for all there is, again until nothing came in between. parse answers
// false for what is not meant.
func list[T any](conn *netlink.Conn, kind netlink.HeaderType, question []byte, parse func([]byte) (T, bool, error)) ([]T, error) {
	request := netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump}, Data: question}
	for range listTries {
		messages, err := conn.Execute(request)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(messages, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			continue
		}
		all := make([]T, 0, len(messages))
		for _, m := range messages {
			one, meant, err := parse(m.Data)
			if err != nil {
				return nil, err
			}
			if meant {
				all = append(all, one)
			}
		}
		return all, nil
	}
	return nil, errInterrupted
}
