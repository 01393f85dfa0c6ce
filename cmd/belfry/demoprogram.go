package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// A demoLine is what a program of the demonstration says of itself.
type demoLine struct {
	Event string    `json:"event"` // listening, answered, lost, waiting
	By    string    `json:"by,omitempty"`
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
}

// The events of demoLine.
const (
	demoListening = "listening" // the service takes connections
	demoAnswered  = "answered"  // the service has answered the client, which is idle now
	demoLost      = "lost"      // the client's connection has ended
	demoWaiting   = "waiting"   // asked: the client reads, and nothing has come
)

// newDemoServiceCommand is the TCP service of the demonstration, a process of its
// own: it can be stopped as a machine that has lost its power is, which says nothing
// to anybody any more.
func newDemoServiceCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "service NAME ADDRESS", Short: "Answer NAME to each line", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := net.Listen("tcp", args[1])
			if err != nil {
				return err
			}
			defer context.AfterFunc(cmd.Context(), func() { _ = l.Close() })()
			say := newDemoVoice(a.out.file)
			say(demoLine{Event: demoListening})
			for {
				conn, err := l.Accept()
				if err != nil {
					return cmd.Context().Err()
				}
				go func() {
					defer conn.Close()
					for lines := bufio.NewScanner(conn); lines.Scan(); {
						fmt.Fprintln(conn, args[0])
					}
				}()
			}
		},
	}
}

// newDemoClientCommand is a client of that service: with seeds it has a witness,
// else it only has its connection. A line on its standard input asks how it does.
func newDemoClientCommand(a *app) *cobra.Command {
	var seeds []string
	var resource string
	cmd := &cobra.Command{
		Use: "client ADDRESS", Short: "Ask once and be idle", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			dial := (&net.Dialer{}).DialContext
			if len(seeds) > 0 {
				d, err := client.OpenDialer(ctx, client.WitnessConfig{Seeds: seeds, Resources: []string{resource}, Name: "demo"})
				if err != nil {
					return err
				}
				defer d.Close()
				dial = d.DialContext
			}
			c := &demoClient{say: newDemoVoice(a.out.file)}
			go c.listen(a.in)
			for {
				conn, err := dial(ctx, "tcp", args[0])
				if err != nil {
					return err
				}
				err = c.use(ctx, conn)
				c.say(demoLine{Event: demoLost, Error: a.plain(err)})
				if len(seeds) == 0 {
					return nil
				}
			}
		},
	}
	cmd.Flags().StringSliceVar(&seeds, "seed", nil, "agents to ask for a witness")
	cmd.Flags().StringVar(&resource, "resource", "", "what the witness is to follow")
	return cmd
}

// newDemoVoice writes lines to a program's standard output, one at a time.
func newDemoVoice(out io.Writer) func(demoLine) {
	var mu sync.Mutex
	return func(l demoLine) {
		mu.Lock()
		defer mu.Unlock()
		l.At = time.Now()
		_ = json.NewEncoder(out).Encode(l) // nobody reads it any more: the demonstration is over
	}
}

// A demoClient asks once, and then reads what does not come.
type demoClient struct {
	say func(demoLine)

	mu   sync.Mutex
	idle bool
}

// use ends with the connection, for the reason it returns.
func (c *demoClient) use(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := fmt.Fprintln(conn, "who"); err != nil {
		return err
	}
	answers := bufio.NewReader(conn)
	by, err := answers.ReadString('\n')
	if err != nil {
		return err
	}
	c.set(true)
	defer c.set(false)
	c.say(demoLine{Event: demoAnswered, By: by[:len(by)-1]})
	_, err = answers.ReadByte()
	return err
}

func (c *demoClient) set(idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
}

func (c *demoClient) listen(in io.Reader) {
	for asked := bufio.NewScanner(in); asked.Scan(); {
		c.mu.Lock()
		idle := c.idle
		c.mu.Unlock()
		if idle {
			c.say(demoLine{Event: demoWaiting})
		}
	}
}

// A demoProgram is one of them, as the demonstration sees it.
type demoProgram struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan demoLine // closed when it has ended
}

// startDemoProgram starts one with these arguments. It has to be called where agents
// are started: their network is the caller's (see newDemoNetwork).
func startDemoProgram(args ...string) (*demoProgram, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &demoProgram{cmd: exec.Command(self, append([]string{"demo"}, args...)...), lines: make(chan demoLine, 16)}
	p.cmd.Env, p.cmd.Stderr = withoutSettings(os.Environ()), os.Stderr // it says there why it fails
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.lines)
		for d := json.NewDecoder(out); ; {
			var l demoLine
			if d.Decode(&l) != nil {
				return
			}
			p.lines <- l
		}
	}()
	return p, nil
}

// next is the next line, which is to be about an event.
func (p *demoProgram) next(ctx context.Context, event string) (demoLine, error) {
	select {
	case l, ok := <-p.lines:
		switch {
		case !ok:
			return l, fmt.Errorf("%w: %s has ended", belfry.ErrNotFound, p.cmd.Args[2])
		case l.Event != event:
			return l, fmt.Errorf("the %s says %s (%s); expected %s", p.cmd.Args[2], l.Event, l.Error, event)
		}
		return l, nil
	case <-ctx.Done():
		return demoLine{}, fmt.Errorf("%s: %w", event, ctx.Err())
	}
}

// ask has a client that waits say so.
func (p *demoProgram) ask(ctx context.Context) error {
	if _, err := fmt.Fprintln(p.in); err != nil {
		return err
	}
	_, err := p.next(ctx, demoWaiting)
	return err
}

// close ends it, also where it stands still.
func (p *demoProgram) close() {
	_ = p.cmd.Process.Kill()
	for range p.lines { // until its output has ended, which Wait is not to cut
	}
	_ = p.cmd.Wait() // reports the signal
}
