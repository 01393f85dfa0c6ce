package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A carrierWatch hears what the kernel tells of one interface, on a socket of its
// own (rtnetlink(7)): the agent's time is measured from what it hears.
type carrierWatch struct {
	fd    int
	index uint32
}

// watchCarrier begins before the cable is pulled: nothing after it is missed.
func (ns *namespace) watchCarrier(device string) (w *carrierWatch, err error) {
	err = ns.do(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		w = &carrierWatch{fd: fd, index: uint32(i.Index)}
		err = errors.Join(
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
			unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}),
		)
		if err != nil {
			return errors.Join(fmt.Errorf("watch the carrier of %s: %w", device, err), unix.Close(fd))
		}
		return nil
	})
	return w, err
}

// lost returns when the kernel has told that the interface has no carrier, and
// ends the watch.
func (w *carrierWatch) lost() (told time.Time, err error) {
	defer func() { err = errors.Join(err, unix.Close(w.fd)) }()
	buffer := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(w.fd, buffer, 0)
		told = time.Now()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return told, fmt.Errorf("wait until the kernel tells of the carrier: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return told, err
		}
		for _, m := range messages {
			const both = unix.IFF_LOWER_UP | unix.IFF_RUNNING
			if m.Header.Type == unix.RTM_NEWLINK && len(m.Data) >= unix.SizeofIfInfomsg &&
				binary.NativeEndian.Uint32(m.Data[4:]) == w.index && binary.NativeEndian.Uint32(m.Data[8:])&both != both {
				return told, nil
			}
		}
	}
}
