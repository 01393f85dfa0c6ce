package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionView is version in JSON.
type versionView struct {
	Version  string `json:"version" doc:"of this program; devel: not built from a tagged version"`
	Revision string `json:"revision" doc:"commit it was built from; empty: not known"`
	Modified bool   `json:"modified" doc:"built from a tree with changes that were not committed"`
	Go       string `json:"go" doc:"version of Go that built it"`
	Platform string `json:"platform" doc:"operating system and architecture"`
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			v := versionOf(debug.ReadBuildInfo())
			return a.show(document{value: v, table: func(o *output, _ bool) {
				fmt.Fprintf(o, "belfry %s  %s  %s\n", v, v.Go, v.Platform)
			}})
		},
	}
}

// String is the version as agents tell it to each other.
func (v versionView) String() string {
	s := v.Version
	if v.Revision != "" && v.Version == "devel" {
		s += "-" + v.Revision[:min(12, len(v.Revision))]
	}
	if v.Modified {
		s += "+modified"
	}
	return s
}

func versionOf(info *debug.BuildInfo, ok bool) versionView {
	v := versionView{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
