package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

// linkFilterFlags say which links are meant, as they were written.
type linkFilterFlags struct {
	peers, networks, interfaces, states []string
	loss, rtt, jitter                   string
}

func (f *linkFilterFlags) register(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.peers, "peer", nil, "only links to these nodes")
	flags.StringSliceVar(&f.networks, "network", nil, "only links on these networks")
	flags.StringSliceVar(&f.interfaces, "interface", nil, "only links over these interfaces of the node")
	flags.StringSliceVar(&f.states, "state", nil, "only links in these states: "+strings.Join(linkStates(), ", "))
	flags.StringVar(&f.loss, "loss-over", "", "only links that lose more, for example 5%")
	flags.StringVar(&f.rtt, "rtt-over", "", "only links whose round trip is longer, for example 20ms")
	flags.StringVar(&f.jitter, "jitter-over", "", "only links whose jitter is more, for example 5ms")
	complete := func(list []string) cobra.CompletionFunc {
		return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
	}
	_ = cmd.RegisterFlagCompletionFunc("peer", a.completeNode) // the flags are there
	_ = cmd.RegisterFlagCompletionFunc("state", complete(linkStates()))
	_ = cmd.RegisterFlagCompletionFunc("network", a.completeLinkWord((*belfryv1.Link).GetNetwork))
	_ = cmd.RegisterFlagCompletionFunc("interface", a.completeLinkWord((*belfryv1.Link).GetInterface))
}

// completeLinkWord proposes what the links of this node have of one kind.
func (a *app) completeLinkWord(of func(*belfryv1.Link) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		words := map[string]bool{}
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			links, err := c.LinksWhere(ctx, "", client.LinkFilter{})
			for _, l := range links.GetLinks() {
				if word := of(l); word != "" {
					words[word] = true
				}
			}
			return err
		})
		return slices.Sorted(maps.Keys(words)), cobra.ShellCompDirectiveNoFileComp
	}
}

// linkStates are all states of a link, in their order.
func linkStates() (names []string) {
	for s := belfry.LinkInit; s <= belfry.LinkFlapping; s++ {
		names = append(names, s.String())
	}
	return names
}

// set tells whether there is any.
func (f *linkFilterFlags) set() bool {
	return len(f.peers)+len(f.networks)+len(f.interfaces)+len(f.states)+len(f.loss)+len(f.rtt)+len(f.jitter) > 0
}

// filter reads them; what only an agent can know it judges.
func (f *linkFilterFlags) filter() (client.LinkFilter, error) {
	all := client.LinkFilter{Peers: f.peers, Networks: f.networks, Interfaces: f.interfaces}
	for _, word := range f.states {
		state, err := belfry.ParseLinkState(word)
		if err != nil {
			if near, ok := config.Nearest(word, linkStates()); ok {
				return all, usagef("--state %s: no state of a link; did you mean %s?", word, near)
			}
			return all, usagef("--state %s: no state of a link; one of %s", word, strings.Join(linkStates(), ", "))
		}
		all.States = append(all.States, state)
	}
	if f.loss != "" {
		v, err := parseValue("loss-over", f.loss, "loss", "%")
		if err != nil {
			return all, err
		}
		if v == 100 {
			return all, usagef("--loss-over %s: no link loses more than all; name a lower share", f.loss)
		}
		all.LossOver = new(v / 100)
	}
	var err error
	if all.RTTOver, err = timeOver("rtt-over", f.rtt, "a round trip"); err != nil {
		return all, err
	}
	all.JitterOver, err = timeOver("jitter-over", f.jitter, "jitter")
	return all, err
}

// longestOver is the most that a threshold of time can be: what is older than
// that is no round trip.
const longestOver = time.Minute

// timeOver reads a threshold of time; 0: there is none.
func timeOver(flag, text, what string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	v, err := parseValue(flag, text, what, "ms")
	if err != nil {
		return 0, err
	}
	d := time.Duration(v * float64(time.Millisecond))
	if d <= 0 || d > longestOver {
		return 0, usagef("--%s %s: more than 0, and up to %s; for example 20ms", flag, text, longestOver)
	}
	return d, nil
}
