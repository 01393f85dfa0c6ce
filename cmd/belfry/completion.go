package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/config"
)

// complete asks the agent for what the shell can offer; where none answers the
// shell offers nothing.
func (a *app) complete(cmd *cobra.Command, ask func(context.Context, *client.Client) error) {
	a.timeout = 500 * time.Millisecond // a shell that waits is worse than one that knows nothing
	_ = a.ask(cmd.Context(), ask)
}

func newCompletionCommand(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Write the completion script of a shell",
		Example: `  source <(belfry completion bash)
  belfry completion zsh > "${fpath[1]}/_belfry"
  belfry completion fish > ~/.config/fish/completions/belfry.fish`,
		Args:      exactly(1, "the shell: "+strings.Join(shells, ", ")),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			}
			if near, ok := config.Nearest(args[0], shells); ok {
				return usagef("unknown shell %q; did you mean %s?", args[0], near)
			}
			return usagef("unknown shell %q; one of %s", args[0], strings.Join(shells, ", "))
		},
	}
}
