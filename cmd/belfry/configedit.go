package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/strictyaml"
)

func newConfigEdit(a *app) *cobra.Command {
	var f commitFlags
	cmd := &cobra.Command{
		Use:   "edit",
		Short: "Change the configuration in an editor",
		Long: `Change the configuration in an editor: $VISUAL, else $EDITOR, else vi. It is what
belfry config get writes; when the editor ends, it is applied. If it has a fault,
or somebody else has changed the configuration meanwhile, nothing is changed, and
the message says where your text is.`,
		Example: "  belfry config edit\n  EDITOR=nano belfry config edit --confirm 2m",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.configEdit(cmd.Context(), f)
		},
	}
	f.confirmFlag(cmd)
	f.requireFlag(cmd)
	f.whyFlag(cmd)
	return cmd
}

func (a *app) configEdit(ctx context.Context, f commitFlags) error {
	if a.getenv("VISUAL") == "" && a.getenv("EDITOR") == "" && !a.terminal() {
		return usagef("no terminal to edit at; set EDITOR to a program that changes the file it is given, or use belfry config apply")
	}
	var before string
	var generation uint64
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		answer, err := c.ConfigText(ctx, "", false)
		before, generation = answer.GetText(), answer.GetGeneration()
		return err
	})
	if err != nil {
		return err
	}
	if before == "" {
		return failf(belfry.ErrUnsupported, "this cluster has no repository, only settings; change them with belfry config set")
	}
	dir, err := os.MkdirTemp("", "belfry-config-")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "config.yaml")
	kept := false
	defer func() {
		if !kept {
			_ = os.RemoveAll(dir) // a leftover of an editor does no harm
		}
	}()
	after, err := a.edited(ctx, file, before)
	if err != nil {
		return err
	}
	if after == before {
		fmt.Fprintf(a.out, "generation %d stays; the text was not changed\n", generation)
		return nil
	}
	if err = a.configApply(ctx, file, after, f); err == nil || errors.As(err, new(status)) {
		return err // the second one is made, and less than was required
	}
	kept = true
	a.notef("nothing is known to be changed; your text is in %s, and belfry config apply takes it when it is right", file)
	return err
}

// edited is the text after a person has had it in their editor.
func (a *app) edited(ctx context.Context, file, text string) (string, error) {
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", err
	}
	editor := cmp.Or(a.getenv("VISUAL"), a.getenv("EDITOR"), "vi")
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", editor+` "$1"`, "sh", file) // it may have arguments, as in "code --wait"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out.file, a.errOut
	if err := cmd.Run(); err != nil {
		return "", failf(belfry.ErrNotFound, "editor %s: %v; nothing is changed, set EDITOR to one that ends with 0", editor, err)
	}
	after, err := a.readInput(file, strictyaml.MaxText)
	return string(after), err
}
