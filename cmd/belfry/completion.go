package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/internal/config"
)

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
