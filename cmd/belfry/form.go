package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/agent"
	"github.com/belfry-ha/belfry/internal/config"
)

// packagedSettings is where the package puts the agent's settings.
const packagedSettings = "/etc/belfry/belfry.yaml"

// formedView is init and join in JSON.
type formedView struct {
	Cluster    string   `json:"cluster" doc:"name of the cluster"`
	ClusterID  string   `json:"cluster_id" doc:"UUID of the cluster"`
	Name       string   `json:"name" doc:"name of this node; of the client, where a client joined"`
	ID         string   `json:"id" doc:"UUID of this node; empty: a client"`
	Number     uint32   `json:"number" doc:"the node's number within its cluster; 0: a client"`
	Role       string   `json:"role" doc:"node, or the client's role"`
	State      string   `json:"state" doc:"directory that was written"`
	Addresses  []string `json:"addresses" doc:"network and heartbeat address of each network"`
	Generation uint64   `json:"generation" doc:"of the member table"`
}

// placeFlags say which agent of this machine a command is about, without
// asking it: it does not run yet.
type placeFlags struct {
	config    string
	addresses []string
}

func (p *placeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.config, "config", "", "file with the agent's settings (default "+packagedSettings+" if it is there)")
	cmd.Flags().StringArrayVar(&p.addresses, "address", nil, "IP address of this machine for the cluster; one for each network (default: those of all interfaces)")
}

// place is the agent that is to run here.
func (p *placeFlags) place() (agent.Place, error) {
	if p.config == "" {
		if _, err := os.Stat(packagedSettings); err == nil {
			p.config = packagedSettings
		}
	}
	settings, err := config.Load(p.config, os.Environ())
	if err != nil {
		return agent.Place{}, err
	}
	addresses, err := agent.OwnAddresses(p.addresses)
	if err != nil {
		return agent.Place{}, err
	}
	place := agent.Place{
		State: settings.State, Name: settings.Node.Name, Named: settings.Node.Name != "", Addresses: addresses,
		HeartbeatPort: uint16(settings.Ports.Heartbeat), StreamsPort: uint16(settings.Ports.Streams),
		Search: settings.Repository.Search, Etcd: settings.Repository.Etcd,
	}
	if web, err := netip.ParseAddrPort(settings.Web.Listen); err == nil {
		place.Web = web
	}
	if place.Name == "" {
		if place.Name, err = hostName(); err != nil {
			return agent.Place{}, err
		}
	}
	return place, nil
}

// hostName is the machine's, up to its first dot.
func hostName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("host name: %w; set node.name", err)
	}
	name, _, _ = strings.Cut(name, ".")
	return strings.ToLower(name), nil
}

func newInitCommand(a *app) *cobra.Command {
	var (
		place  placeFlags
		name   string
		ca     string
		keyOut string
		opts   agent.InitOptions
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a cluster whose first node is this machine",
		Long: `Make a cluster whose first node is this machine: its certificate authority, its
group secret and this node's identity. It writes the state directory and starts
nothing. Other machines join with a token (belfry token create).

The authority's key is kept by the first three nodes, sealed to them. With --ca
offline it is written to a file instead, for you to take away: then a join or a
renewal waits until you have signed it (belfry ca sign).

With --repository the configuration lies on a block device that all machines of
the cluster reach, or for a cluster on one machine in a file *.belfry, whose
folder is in the setting repository.search. PATH is used this once: the agents
find it by what is on it, whatever it is called later. What holds something
already is refused; --force destroys that.

etcd://HOST:PORT[,HOST:PORT]/PREFIX puts it into an etcd instead. All but etcd on
this machine is reached over TLS; the settings below repository.etcd name the
authority, a certificate, a user: the same as for etcd's own clients.

Nodes tell each other only that the configuration changed. While the repository
is away changes are refused, and all else goes on.`,
		Example: `  belfry init --name prod
  belfry init --name prod --repository /dev/disk/by-id/wwn-0x5000c500a1b2c3d4
  belfry init --name prod --repository etcd://10.0.0.5:2379,10.0.0.6:2379/belfry
  belfry init --name prod --address 10.0.0.1 --address 10.1.0.1
  systemctl start belfry && belfry token create`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ca != "" && ca != "offline" {
				return usagef("--ca %s: not known; offline, or leave it out", ca)
			}
			if ca == "" && keyOut != "" {
				return usagef("--ca-key %s: only with --ca offline is there a key to write", keyOut)
			}
			if ca == "offline" && keyOut == "" {
				return usagef("--ca offline: --ca-key FILE is missing: where to write the authority's key")
			}
			if opts.Force && opts.Repository == "" {
				return usagef("--force: only with --repository is there something to destroy")
			}
			p, err := place.place()
			if err != nil {
				return err
			}
			opts.Name, opts.CAKeyFile, opts.Now = name, keyOut, time.Now()
			table, err := agent.Init(p, opts)
			if err != nil {
				return err
			}
			return a.formed(formedViewOf(p.State, table, table.Nodes[0]), &place)
		},
	}
	place.add(cmd)
	cmd.Flags().StringVar(&name, "name", "belfry", "name of the cluster: 1 to 63 of a-z, 0-9 and -")
	cmd.Flags().StringVar(&opts.Repository, "repository", "", "PATH of a block device or file *.belfry that is to hold the configuration, or etcd://HOST:PORT/PREFIX")
	cmd.Flags().BoolVar(&opts.Force, "force", false, "with --repository: destroy what PATH holds")
	cmd.Flags().StringVar(&ca, "ca", "", "offline: keep the authority's key out of the cluster")
	cmd.Flags().StringVar(&keyOut, "ca-key", "", "with --ca offline: FILE for the authority's key; keep it safe, there is no other")
	return cmd
}

func newJoinCommand(a *app) *cobra.Command {
	var (
		place    placeFlags
		identity string
	)
	cmd := &cobra.Command{
		Use:   "join TOKEN|- [ADDRESS]",
		Short: "Make this machine a member of a cluster",
		Long: `Make this machine a member of a cluster, with a token that one of its members
has made (belfry token create). ADDRESS is HOST or HOST:PORT of any member;
without it the command waits to be told (belfry token create --announce). A
token of - is read from standard input, so that it is seen in no list of
processes.

It writes the state directory and starts nothing. What answers at ADDRESS must
prove that it is of the token's cluster before anything is sent to it. If the
command is cut off, run it again with the same token.

A token that was made with --role gives a client an identity, in the directory
that --identity names.`,
		Example: `  belfry join - 10.0.0.1 < token
  belfry join belfry1.… 10.0.0.1 && systemctl start belfry
  belfry join belfry1.… 10.0.0.1 --identity ~/.belfry`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("the token is missing; - reads it from standard input")
			case len(args) > 2:
				return usagef("%q is one argument too many", args[2])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := a.readToken(args[0])
			if err != nil {
				return err
			}
			return a.join(cmd.Context(), &place, token, strings.Join(args[1:], ""), identity)
		},
	}
	place.add(cmd)
	cmd.Flags().StringVar(&identity, "identity", "", "with a client's token: directory for its key and certificate")
	return cmd
}

// maxTokenText is far beyond what a token takes, in bytes.
const maxTokenText = 4096

func (a *app) readToken(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	text, err := io.ReadAll(io.LimitReader(a.in, maxTokenText))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", usagef("standard input is empty; it should hold the token")
	}
	return token, nil
}

// joinTimeout is how long a join may take; a token lives for minutes.
const joinTimeout = 30 * time.Second

func (a *app) join(ctx context.Context, flags *placeFlags, token, address, identity string) error {
	if a.timeout == 0 {
		a.timeout = joinTimeout
	}
	ctx, cancel := a.request(ctx)
	defer cancel()
	opts := agent.JoinOptions{Token: token, Address: address, Identity: identity, Say: a.onChange()}
	joined, err := agent.Join(ctx, flags.place, opts)
	if errors.Is(err, context.DeadlineExceeded) {
		return failf(belfry.ErrUnknown, "%v; the same command goes on where it stopped", err)
	}
	if err != nil {
		return err
	}
	if joined.Client != "" {
		return a.formed(formedView{
			Cluster: joined.Cluster, ClusterID: joined.ClusterID.String(), Name: joined.Client, Role: joined.Role,
			State: identity, Addresses: []string{}, Generation: joined.Generation,
		}, flags)
	}
	return a.formed(formedViewOf(joined.State, joined.Table, joined.Node), flags)
}

// onChange tells what a command waits for, once.
func (a *app) onChange() func(format string, args ...any) {
	last := ""
	return func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != last {
			a.notef("%s", text)
			last = text
		}
	}
}

func formedViewOf(state string, t *agent.Table, n agent.Node) formedView {
	v := formedView{
		Cluster: t.Name, ClusterID: t.Cluster.String(), Name: n.Name, ID: n.ID.String(), Number: uint32(n.Number), Role: "node",
		State: state, Generation: t.Generation,
	}
	for _, network := range n.Networks {
		v.Addresses = append(v.Addresses, network.Name+" "+network.Heartbeat.String())
	}
	return v
}

// formed says what came about, and what comes next.
func (a *app) formed(v formedView, flags *placeFlags) error {
	return a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			if v.ID == "" {
				fmt.Fprintf(o, "client %s (%s) of cluster %s: %s\n", v.Name, v.Role, v.Cluster, v.State)
				fmt.Fprintf(a.errOut, "use it with: BELFRY_IDENTITY=%s belfry --server HOST:PORT status\n", v.State)
				return
			}
			fmt.Fprintf(o, "%s is node %d of cluster %s: %s\n", v.Name, v.Number, v.Cluster, strings.Join(v.Addresses, ", "))
			start := "systemctl start belfry"
			if flags.config != packagedSettings {
				start = "belfry agent"
				if flags.config != "" {
					start += " --config " + flags.config
				}
			}
			fmt.Fprintf(a.errOut, "start its agent with: %s\n", start)
		},
	})
}
