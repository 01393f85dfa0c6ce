package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// A demoNetwork is a network of the demonstration's own, in which packets can
// be dropped that are nobody else's. Where there is none, the agents run on
// this machine's loopback and nothing is dropped.
type demoNetwork struct {
	missing string // why there is none; empty: there is one
}

// newDemoNetwork moves the caller's thread into a new network namespace, which
// what it starts from then on inherits, and keeps the caller on that thread. So
// the namespace ends with this process and its agents, whatever ends them, and
// leaves nothing behind (network_namespaces(7)). Clients are not bothered: a
// unix socket with a path is found from any network namespace (unix(7)).
func newDemoNetwork(ctx context.Context) (demoNetwork, error) {
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			return demoNetwork{missing: "no " + program + " in $PATH"}, nil
		}
	}
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return demoNetwork{missing: fmt.Sprintf("no network namespace of its own (%v); run it as root", err)}, nil
	}
	if err := pipeTo(ctx, "", "ip", "link", "set", "lo", "up"); err != nil {
		return demoNetwork{}, err // nothing can be heard here, and there is no way back
	}
	// A kernel without nf_tables has the program nonetheless.
	if err := pipeTo(ctx, "", "nft", "list", "ruleset"); err != nil {
		return demoNetwork{missing: err.Error()}, nil
	}
	return demoNetwork{}, nil
}

const (
	dropRule   = "table inet belfry_demo { chain input { type filter hook input priority 0; %s drop; }; }\n"
	deleteRule = "delete table inet belfry_demo\n"
)

// drop drops what matches, an expression of nft(8), until heal.
func (demoNetwork) drop(ctx context.Context, match string) error {
	return pipeTo(ctx, fmt.Sprintf(dropRule, match), "nft", "-f", "-")
}

// heal takes back what drop did.
func (demoNetwork) heal(ctx context.Context) error {
	return pipeTo(ctx, deleteRule, "nft", "-f", "-")
}

// pipeTo runs a program with input; its error has what the program said.
func pipeTo(ctx context.Context, input, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.Join(strings.Fields(string(output)), " "))
	}
	return nil
}
