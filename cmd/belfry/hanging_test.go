package main

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// hangings finds the files of a script that can be made to hang, by path.
type hangings struct{}

// A hanging answers who opens or reads a file, until it does not any more.
type hanging struct {
	events *os.File // of fanotify(7)
	now    atomic.Bool
}

// cmdHanging has those who have a file open, or open it, wait for what they read,
// from now on until the end of the script: hanging FILE later, before anybody opens
// it, and then hanging FILE now. The kernel asks only about files that were opened
// when it had been told that it is to ask.
func cmdHanging(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || args[1] != "later" && args[1] != "now" {
		ts.Fatalf("usage: hanging FILE later|now")
	}
	all, path := ts.Value(hangings{}).(map[string]*hanging), ts.MkAbs(args[0])
	if args[1] == "now" {
		if all[path] == nil {
			ts.Fatalf("hanging %s later comes first", args[0])
		}
		all[path].now.Store(true)
		return
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_ACCESS_PERM, unix.AT_FDCWD, path)
	}
	if err != nil {
		ts.Value(skipKey{}).(testscript.T).Skip("needs: fanotify")
	}
	h := &hanging{events: os.NewFile(uintptr(fd), "fanotify")}
	all[path] = h
	ended := make(chan error, 1)
	go func() { ended <- h.answer() }()
	ts.Defer(func() {
		ts.Check(h.events.Close()) // which answers all that wait
		ts.Check(<-ended)
	})
}

// answer lets everybody go on, and nobody once it is to hang.
func (h *hanging) answer() error {
	buffer := make([]byte, 4096)
	for {
		n, err := h.events.Read(buffer)
		if errors.Is(err, fs.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		for at := 0; at+24 <= n; { // struct fanotify_event_metadata
			event := buffer[at:n]
			at += int(binary.NativeEndian.Uint32(event))
			about := event[16:20] // the file descriptor
			if !h.now.Load() {
				answer := binary.NativeEndian.AppendUint32(append([]byte(nil), about...), unix.FAN_ALLOW)
				if _, err := h.events.Write(answer); err != nil {
					return err
				}
			}
			if err := unix.Close(int(int32(binary.NativeEndian.Uint32(about)))); err != nil {
				return err
			}
		}
	}
}
