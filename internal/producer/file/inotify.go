package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A rawEvent is one record of inotify(7).
type rawEvent struct {
	wd   int32 // of the watch; -1 of an overflow
	mask uint32
	name string // of the entry of a watched directory; empty: of the watched itself
}

// headerSize is the size of struct inotify_event without its name.
const headerSize = 16

var errRecord = errors.New("a record of inotify ends too early")

// parse takes the records apart that one read returned.
func parse(b []byte) ([]rawEvent, error) {
	var events []rawEvent
	for len(b) > 0 {
		if len(b) < headerSize {
			return events, errRecord
		}
		length := binary.NativeEndian.Uint32(b[12:])
		if uint64(length) > uint64(len(b)-headerSize) {
			return events, errRecord
		}
		name, _, _ := bytes.Cut(b[headerSize:headerSize+length], []byte{0}) // padded with zeros
		events = append(events, rawEvent{
			wd:   int32(binary.NativeEndian.Uint32(b)),
			mask: binary.NativeEndian.Uint32(b[4:]),
			name: string(name),
		})
		b = b[headerSize+length:]
	}
	return events, nil
}

// The masks of the four uses of a watch. Those of one inode add up.
const (
	fileMask      = unix.IN_MODIFY | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	attributeMask = unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	nameMask      = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// An inotify is one instance with all its watches. The kernel keeps one watch
// an inode, so each has a set of users.
type inotify struct {
	file    *os.File
	watches map[int32]*watched
}

// A watched is one inode and who wants to hear of it.
type watched struct {
	wd    int32
	self  map[*target]bool            // it is what they name
	names map[string]map[*target]bool // it is the directory that holds their name
	walks map[*pattern]string         // patterns that go through it, and its path as they came
}

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	return &inotify{file: os.NewFile(uintptr(fd), "inotify"), watches: map[int32]*watched{}}, nil
}

// read hands over what happens until close. While nobody takes it the kernel
// keeps it, and says so when that becomes too much.
func (in *inotify) read(ctx context.Context, events chan<- []rawEvent, failed chan<- error) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := in.file.Read(buffer)
		var batch []rawEvent
		if err == nil {
			batch, err = parse(buffer[:n])
		}
		if err != nil {
			failed <- err
			return
		}
		select {
		case events <- batch:
		case <-ctx.Done():
			return
		}
	}
}

// close ends read. The kernel takes all watches away.
func (in *inotify) close() error { return in.file.Close() }

// add watches the inode that path names, and finds the others who do.
func (in *inotify) add(path string, mask uint32) (*watched, error) {
	var wd int
	err := in.control(func(fd int) (err error) {
		wd, err = unix.InotifyAddWatch(fd, path, mask|unix.IN_MASK_ADD)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "inotify_add_watch", Path: path, Err: err}
	}
	w := in.watches[int32(wd)]
	if w == nil {
		w = &watched{wd: int32(wd), self: map[*target]bool{}, names: map[string]map[*target]bool{}, walks: map[*pattern]string{}}
		in.watches[w.wd] = w
	}
	return w, nil
}

// drop ends a watch that nobody uses any more.
func (in *inotify) drop(w *watched) {
	if len(w.self)+len(w.names)+len(w.walks) > 0 || in.watches[w.wd] != w {
		return
	}
	delete(in.watches, w.wd)
	_ = in.control(func(fd int) error { // EINVAL: the kernel has taken it away already
		_, err := unix.InotifyRmWatch(fd, uint32(w.wd))
		return err
	})
}

func (in *inotify) control(f func(fd int) error) error {
	conn, err := in.file.SyscallConn()
	if err != nil {
		return err
	}
	if controlErr := conn.Control(func(fd uintptr) { err = f(int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}

func (w *watched) addName(name string, t *target) {
	if w.names[name] == nil {
		w.names[name] = map[*target]bool{}
	}
	w.names[name][t] = true
}

func (w *watched) removeName(name string, t *target) {
	delete(w.names[name], t)
	if len(w.names[name]) == 0 {
		delete(w.names, name)
	}
}
