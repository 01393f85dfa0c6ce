package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
)

var nan = math.NaN()

// roleSilent is a child in a network namespace of its own.
const roleSilent = "silent"

const (
	servedHost = "127.0.11.2" // of b, as belfry up gives it
	idleTime   = 10 * time.Second
	blockTime  = 10 * time.Second // that a client without a witness is watched
)

// A silence is one repetition in which the host of b falls silent: seconds from
// the first packet that is lost, and what each client cost before, bytes a second
// of IP packets both ways. Nil is nothing within the time.
type silence struct {
	Verdict, Told, Idle, Second, Five        *float64
	ToldCost, IdleCost, SecondCost, FiveCost float64
	Error                                    string
}

// measureSilent cuts the host of b off and kills all on it: its kernel says no
// word either.
func measureSilent(ctx context.Context, b *bench) ([]side.Row, error) {
	var all []silence
	err := b.turns(ctx, "silent host", func(ctx context.Context) error {
		s, err := fallSilent(ctx)
		all = append(all, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	blocked := 0
	for _, s := range all {
		if s.Idle == nil {
			blocked++
		}
	}
	row := func(work, unit string, of func(silence) float64, bound side.Target) side.Row {
		return side.Row{Work: work, Unit: unit, Ours: side.Pick(all, of), Target: bound}
	}
	rows := []side.Row{
		row("from the first packet that is lost to the verdict *down*", "s", func(s silence) float64 { return value(s.Verdict) }, side.Target{}),
		row("to the client with a witness", "s", func(s silence) float64 { return value(s.Told) }, side.Target{}),
		row("from the verdict to the client", "ms", func(s silence) float64 { return 1000 * (value(s.Told) - value(s.Verdict)) }, side.Target{Own: 50}),
		row("to a client with a heartbeat each 1 s", "s", func(s silence) float64 { return value(s.Second) }, side.Target{}),
		row("to a client with a heartbeat each 5 s", "s", func(s silence) float64 { return value(s.Five) }, side.Target{}),
		row("traffic with a witness", "bytes/s", func(s silence) float64 { return s.ToldCost }, side.Target{}),
		row("traffic with a heartbeat each 1 s", "bytes/s", func(s silence) float64 { return s.SecondCost }, side.Target{}),
		row("traffic with a heartbeat each 5 s", "bytes/s", func(s silence) float64 { return s.FiveCost }, side.Target{}),
		row("traffic without either", "bytes/s", func(s silence) float64 { return s.IdleCost }, side.Target{}),
	}
	rows[1].Note = fmt.Sprintf("a client without either, with TCP keep-alives as the kernel has them, still waited after %s in %d of %d repetitions", blockTime, blocked, len(all))
	return rows, nil
}

func value(v *float64) float64 {
	if v == nil {
		return nan
	}
	return *v
}

func fallSilent(ctx context.Context) (s silence, err error) {
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), side.RoleVariable+"="+roleSilent)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	text, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("%w; run as root, with ip and nft", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	if s.Error != "" {
		err = errors.New(s.Error)
	}
	return s, err
}

// playSilent runs one repetition and writes it as JSON.
func playSilent(_ []string, _ io.Reader, out io.Writer) error {
	var s silence
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := s.play(ctx); err != nil {
		s.Error = err.Error()
	}
	return json.NewEncoder(out).Encode(s)
}

// A dependent is one of those that depend on the service at b.
type dependent struct {
	port  string        // of the service that it uses: its traffic is counted by it
	every time.Duration // of its heartbeats; 0: none
	ended chan time.Time
}

func (s *silence) play(ctx context.Context) error {
	if err := command("ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	c, err := startCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.stop() }()
	verdicts, err := c.verdicts(ctx)
	if err != nil {
		return err
	}
	clients := []*dependent{{port: "19000"}, {port: "19001", every: time.Second}, {port: "19005", every: 5 * time.Second}}
	for _, d := range clients {
		if err := d.start(ctx); err != nil {
			return err
		}
	}
	w, err := watch(ctx, system(keeping{c}), 1)
	if err != nil {
		return err
	}
	defer w.close()
	_, port, err := net.SplitHostPort(w.conns[0].conn.LocalAddr().String())
	if err != nil {
		return err
	}
	counted := []string{port}
	for _, d := range clients {
		counted = append(counted, d.port)
	}
	costs, err := traffic(ctx, counted)
	if err != nil {
		return err
	}
	s.ToldCost, s.IdleCost, s.SecondCost, s.FiveCost = costs[0], costs[1], costs[2], costs[3]

	began := time.Now()
	since := func(at time.Time) *float64 { v := at.Sub(began).Seconds(); return &v }
	took, err := w.round(ctx, func() (time.Time, error) {
		ports, err := portsOf(c.agents.PIDs["b"])
		if err != nil {
			return began, err
		}
		began = time.Now()
		return began, errors.Join(silenceHost(ports), c.agents.Kill("b"))
	})
	if err != nil {
		return err
	}
	told := took[0] / 1000
	s.Told = &told
	limit := time.After(time.Until(began.Add(blockTime + 2*5*time.Second)))
	for s.Verdict == nil || s.Second == nil || s.Five == nil {
		select {
		case v := <-verdicts:
			if v.to == belfry.VerdictDown {
				s.Verdict = since(v.at)
			}
		case at := <-clients[0].ended:
			s.Idle = since(at)
		case at := <-clients[1].ended:
			s.Second = since(at)
		case at := <-clients[2].ended:
			s.Five = since(at)
		case <-limit:
			return errors.New("a client with heartbeats, or the agent, noticed nothing")
		}
	}
	select {
	case at := <-clients[0].ended:
		s.Idle = since(at)
	case <-time.After(time.Until(began.Add(blockTime))):
	}
	return nil
}

// keeping is the cluster with the keep-alives that clients have if they do not
// say otherwise.
type keeping struct{ *cluster }

func (k keeping) open(ctx context.Context, i int) (*connection, error) {
	return k.openEvery(ctx, i, 5*time.Second)
}

// start serves at b, and connects.
func (d *dependent) start(ctx context.Context) error {
	d.ended = make(chan time.Time, 1)
	l, err := net.Listen("tcp", net.JoinHostPort(servedHost, d.port))
	if err != nil {
		return err
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(conn, conn)
	}()
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("%T is no TCP connection", conn)
	}
	if err := tcp.SetKeepAlive(true); err != nil { // with the kernel's times
		return err
	}
	go func() {
		d.ended <- d.use(conn)
	}()
	return nil
}

// use returns when the client finds the connection dead: a heartbeat is not
// answered before the second one after it is due.
func (d *dependent) use(conn net.Conn) time.Time {
	defer conn.Close()
	var b [1]byte
	if d.every == 0 {
		_, _ = conn.Read(b[:])
		return time.Now()
	}
	for ticker := time.NewTicker(d.every); ; <-ticker.C {
		if _, err := conn.Write(b[:]); err != nil {
			return time.Now()
		}
		_ = conn.SetReadDeadline(time.Now().Add(2 * d.every))
		if _, err := conn.Read(b[:]); err != nil {
			return time.Now()
		}
	}
}

// traffic is the bytes a second of TCP connections by a port of either end.
func traffic(ctx context.Context, ports []string) (costs []float64, err error) {
	var rules strings.Builder
	rules.WriteString("table inet cost {\n")
	for _, p := range ports {
		fmt.Fprintf(&rules, "counter p%s {}\n", p)
	}
	rules.WriteString("chain out { type filter hook output priority 0;\n")
	for _, p := range ports {
		fmt.Fprintf(&rules, "tcp sport %s counter name p%s\ntcp dport %s counter name p%s\n", p, p, p, p)
	}
	rules.WriteString("}\n}\n")
	if err := filter(rules.String()); err != nil {
		return nil, err
	}
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	text, err := exec.CommandContext(ctx, "nft", "-j", "list", "counters").Output()
	if err != nil {
		return nil, err
	}
	var listed struct {
		Nftables []struct {
			Counter struct {
				Name  string
				Bytes float64
			}
		}
	}
	if err := json.Unmarshal(text, &listed); err != nil {
		return nil, err
	}
	for _, p := range ports {
		for _, one := range listed.Nftables {
			if one.Counter.Name == "p"+p {
				costs = append(costs, one.Counter.Bytes/idleTime.Seconds())
			}
		}
	}
	if len(costs) != len(ports) {
		return nil, fmt.Errorf("nft lists %s", text)
	}
	return costs, nil
}

// silenceHost loses all packets of b: those of its addresses, and of the
// connections that its agent has made, which come from an address that all share.
func silenceHost(ports []string) error {
	rules := "table inet silent { chain out { type filter hook output priority 0;\n"
	for _, host := range []string{servedHost, "127.0.12.2"} {
		rules += "ip saddr " + host + " drop\nip daddr " + host + " drop\n"
	}
	if len(ports) > 0 {
		set := "{ " + strings.Join(ports, ", ") + " }"
		rules += "tcp sport " + set + " drop\ntcp dport " + set + " drop\n"
	}
	return filter(rules + "}\n}\n")
}

// portsOf are the local ports of a process's TCP connections that it has from the
// shared address.
func portsOf(pid int) (ports []string, err error) {
	text, err := exec.Command("ss", "-Htnp").Output()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.Contains(f[5], "pid="+strconv.Itoa(pid)+",") {
			continue
		}
		if host, port, err := net.SplitHostPort(f[3]); err == nil && host == "127.0.0.1" {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

func filter(rules string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, text)
	}
	return nil
}

func command(name string, args ...string) error {
	if text, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return nil
}
