package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel's process connector tells of each process that executes a file,
// after it has done so: what it runs is in /proc by then. It speaks in the first
// network namespace, to who is in the first user and process namespaces and has
// CAP_NET_ADMIN (linux/cn_proc.h, linux/connector.h).
const (
	connectorGroup = 1 // CN_IDX_PROC, and CN_VAL_PROC

	opListen = 1 // PROC_CN_MCAST_LISTEN
	opIgnore = 2 // PROC_CN_MCAST_IGNORE

	eventNone = 0 // PROC_EVENT_NONE: the answer to the operation
	eventExec = 2 // PROC_EVENT_EXEC

	// A datagram: nlmsghdr, cn_msg, proc_event.
	atConnector   = unix.SizeofNlMsghdr
	atEvent       = atConnector + 20
	atData        = atEvent + 16 // what, cpu, timestamp
	leastDatagram = atData + 8
)

// connectorToken stands for the connector in the poller; those of processes count
// up from 1.
const connectorToken = ^uint64(0)

// connectorBuffer is how much the kernel keeps while this process is busy: some
// thousand executions.
const connectorBuffer = 4 << 20

// connectorAnswer is how long the kernel may take. It answers before the
// operation returns; where it does not speak it says nothing at all.
const connectorAnswer = 200 * time.Millisecond

// The first namespaces have these numbers (linux/proc_ns.h).
const (
	firstUserNamespace = "user:[4026531837]"
	firstPIDNamespace  = "pid:[4026531836]"
)

// A connector is a socket on which the kernel tells of executions.
type connector struct{ fd int }

// openConnector says in the error, for people, why it can not be had.
func openConnector(buffer int) (*connector, error) {
	for link, first := range map[string]string{"user": firstUserNamespace, "pid": firstPIDNamespace} {
		if ns, err := os.Readlink("/proc/self/ns/" + link); err != nil || ns != first {
			return nil, fmt.Errorf("the agent is not in the machine's first %s namespace", link)
		}
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("the kernel or this network namespace has no process connector: %w", os.NewSyscallError("socket", err))
	}
	c := &connector{fd: fd}
	if err := c.begin(buffer); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *connector) begin(buffer int) error {
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer) // else there are overruns sooner, which are told
	}
	if err := unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, onlyExecutions()); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (connectorGroup - 1)}); err != nil {
		return because(err, "bind")
	}
	question := rand.Uint32()
	if err := c.operate(opListen, question); err != nil {
		return because(err, "send")
	}
	for deadline := time.Now().Add(connectorAnswer); ; {
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return errors.New("the kernel does not answer; in a container it never does")
		}
		m, err := c.receive()
		if err == nil && m != nil && m.what == eventNone && m.answers == question+1 {
			if m.first != 0 {
				return because(unix.Errno(m.first), "listen")
			}
			return nil
		}
	}
}

func because(err error, call string) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return errors.New("the agent has no CAP_NET_ADMIN")
	}
	return os.NewSyscallError(call, err)
}

// onlyExecutions drops all else before it costs anything (bpf, the classic one).
func onlyExecutions() *unix.SockFprog {
	native := func(v uint32) uint32 { return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v)) }
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: atEvent},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: native(eventExec)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: native(eventNone)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
}

// operate sends an operation of 32 bits, which every kernel takes. The answer has
// the number of the question plus 1; the kernel uses the sequence number itself.
func (c *connector) operate(op, question uint32) error {
	b := make([]byte, 0, atEvent+4)
	b = binary.NativeEndian.AppendUint32(b, atEvent+4)
	b = binary.NativeEndian.AppendUint16(b, unix.NLMSG_DONE)
	b = binary.NativeEndian.AppendUint16(b, 0)
	for _, v := range []uint32{0, 0, connectorGroup, connectorGroup, 0, question} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	b = binary.NativeEndian.AppendUint16(b, 4)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, op)
	return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// An execution is what the connector says.
type execution struct {
	what    uint32
	answers uint32 // a question
	first   uint32 // of the data: the error of an answer, the thread that executed
	pid     int    // of the process
}

// receive is the next thing that the kernel has said; nil: nothing more by now.
// The error wraps ENOBUFS when some were lost since the last call.
func (c *connector) receive() (*execution, error) {
	var buffer [256]byte
	for {
		n, from, err := unix.Recvfrom(c.fd, buffer[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 { // not the kernel
			continue
		}
		if m, ok := parseExecution(buffer[:n]); ok {
			return &m, nil
		}
	}
}

func parseExecution(b []byte) (m execution, ok bool) {
	if len(b) < leastDatagram {
		return m, false
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	if word(atConnector) != connectorGroup || word(atConnector+4) != connectorGroup {
		return m, false
	}
	m = execution{what: word(atEvent), answers: word(atConnector + 12), first: word(atData)}
	if m.what == eventExec {
		m.pid = int(int32(word(atData + 4)))
	}
	return m, true
}

// close says so first: kernels before 6.6 go on for who has only gone.
func (c *connector) close() {
	_ = c.operate(opIgnore, 0)
	unix.Close(c.fd)
}
