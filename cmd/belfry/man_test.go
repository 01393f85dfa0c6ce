package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// manDir holds the manual pages, one per command; they are made from the
// command tree, so that they say what --help says, and committed.
var manDir = filepath.Join(packagingDir, "man")

func TestManualPagesAreThoseOfTheCommands(t *testing.T) {
	t.Parallel()
	count := 0
	var each func(*cobra.Command)
	each = func(cmd *cobra.Command) {
		golden(t, filepath.Join(manDir, manName(cmd)+".1"), manPage(cmd))
		count++
		for _, sub := range cmd.Commands() {
			if !sub.Hidden { // which people do not call
				each(sub)
			}
		}
	}
	each((&app{out: new(output)}).newRoot())
	if files, err := os.ReadDir(manDir); err != nil || len(files) != count {
		t.Errorf("%d manual pages in %s, want %d: one per command (%v)", len(files), manDir, count, err)
	}
}

func TestManualPagesAreSet(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("needs: groff")
	}
	pages, err := filepath.Glob(filepath.Join(manDir, "*.1"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no manual pages: %v", err)
	}
	cmd := exec.Command("groff", append([]string{"-man", "-k", "-Tutf8", "-ww", "-z"}, pages...)...)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

// manName is belfry-node-list for belfry node list.
func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is the page of one command in the language of man(7). Without a date:
// it would change a page that says the same.
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".\\\" Made from the command tree by go test ./cmd/belfry -run Manual -update.\n")
	fmt.Fprintf(&b, ".TH %q 1 \"\" \"Belfry\" \"Belfry manual\"\n", strings.ToUpper(manName(cmd)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(manName(cmd)), roff(cmd.Short))
	b.WriteString(".SH SYNOPSIS\n")
	if !cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\\fB%s\\fR\n", roff(cmd.UseLine()))
	} else {
		fmt.Fprintf(&b, "\\fB%s\\fR \\fICOMMAND\\fR\n", roff(cmd.CommandPath()))
	}
	b.WriteString(".SH DESCRIPTION\n")
	if cmd.Long != "" {
		b.WriteString(manText(cmd.Long))
	} else {
		b.WriteString(roff(cmd.Short) + ".\n")
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range cmd.Commands() {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR(1)\n%s\n", roff(manName(sub)), roff(sub.Short))
		}
	}
	manFlags(&b, cmd)
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLES\n" + manText(cmd.Example))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n\\fB%s\\fR(1)", roff(manName(cmd.Root())))
		if cmd.Parent().HasParent() {
			fmt.Fprintf(&b, ", \\fB%s\\fR(1)", roff(manName(cmd.Parent())))
		}
		b.WriteString("\n")
	} else {
		b.WriteString(manRoot)
	}
	return b.String()
}

// flagUsage is a line of the flag library: -o, --output FORM   form of the output.
var flagUsage = regexp.MustCompile(`(?m)^ +((?:-\w, )?--[\w-]+)( \S+)?  +(.*)$`)

// manFlags describes the command's own flags; those of all commands stand in
// the page of belfry.
func manFlags(b *strings.Builder, cmd *cobra.Command) {
	flags := flagUsage.FindAllStringSubmatch(cmd.LocalFlags().FlagUsages(), -1)
	if len(flags) > 0 {
		b.WriteString(".SH OPTIONS\n")
	}
	for _, f := range flags {
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR\\fI%s\\fR\n%s\n", roff(f[1]), roff(f[2]), roff(f[3]))
	}
	if cmd.HasParent() && len(flags) > 0 {
		b.WriteString(".PP\nThe options of all commands are in \\fBbelfry\\fR(1).\n")
	}
}

// manText sets paragraphs as such; what is indented, as it is.
func manText(text string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		switch {
		case strings.HasPrefix(paragraph, "  "):
			fmt.Fprintf(&b, ".PP\n.EX\n%s\n.EE\n", roff(paragraph))
		case i > 0:
			fmt.Fprintf(&b, ".PP\n%s\n", roff(paragraph))
		default:
			fmt.Fprintf(&b, "%s\n", roff(paragraph))
		}
	}
	return b.String()
}

// roff keeps text from being read as requests, and - and quotes from becoming
// others, so that what is shown can be copied (groff_char(7)).
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// manRoot ends the page of belfry with what holds for all commands.
var manRoot = fmt.Sprintf(`.SH EXIT STATUS
.TP
0
Done, and the answer is yes.
.TP
%d
Failed, refused, or does not exist.
.TP
%d
Wrong use: nothing was attempted.
.TP
%d
No agent answers.
.TP
%d
Not now: conflict, restricted mode, not a member, or the outcome is unknown.
.TP
%d
Time ran out.
.TP
%d
\fBbelfry watch \-\-strict\fR met a gap.
.TP
%d+\fIn\fR
Ended by signal \fIn\fR.
.SH ENVIRONMENT
.TP
\fBBELFRY_SOCKET\fR
Unix socket of the agent.
.TP
\fBBELFRY_IDENTITY\fR
Directory with client.crt, client.key and ca.crt, for \fB\-\-server\fR.
.TP
\fBBELFRY_\fR\fISETTING\fR
For \fBbelfry agent\fR: a setting, its path in capitals with _ for each dot.
.TP
\fBNO_COLOR\fR
Anything: no colors.
.SH FILES
.TP
/etc/belfry/belfry.yaml
Settings of the agent that systemd starts.
.TP
/var/lib/belfry
Its state and keys.
.TP
/run/belfry/belfry.sock
Its socket.
`, exitFailed, exitUsage, exitNoAgent, exitNotNow, exitTimeout, exitGap, exitSignal)
