package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) infraCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check [NAME]", Short: "Show how an infrastructure stands: access, rights, quotas, rules, ways of a pod",
		Long:              "Connect to an infrastructure, and write the page that its engineer reads: version, clock, credentials, what is granted, quotas and limits, Pod Security, and what a pod reaches. Nothing is made but a pod that tries its ways, where there is an image for it. Ends with exit code 1 when something that tasks need is missing.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeInfrastructures,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				// A pod that is tried takes its time, where something is wrong with it.
				told := time.AfterFunc(2*time.Second, func() { fmt.Fprintln(a.stderr, "berth: a pod is being tried, for a minute at most") })
				check, err := service.CheckInfrastructure(ctx, name)
				told.Stop()
				if err != nil {
					return err
				}
				if err := a.printTo(a.drawn(), check, func(w io.Writer) { newCheckPage(w, a.stdout).write(check) }); err != nil {
					return err
				}
				if !check.OK || failedRow(check) {
					return exitError(1)
				}
				return nil
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

// checkPage writes a check as the page that a cluster's engineer reads.
type checkPage struct {
	io.Writer
	width   int  // of the page, in columns
	column  int  // width of what was looked at
	colours bool // of what stands out
}

// newCheckPage is a page that is as wide as the terminal where it ends up.
func newCheckPage(w, on io.Writer) *checkPage {
	p := &checkPage{Writer: w, width: 80}
	if width := terminalWidth(on); width != nil {
		p.width = max(60, min(width(), 120))
		p.colours = os.Getenv("NO_COLOR") == ""
	}
	return p
}

// checkGroups are the groups of a page, in its order. Those of profiles are
// under "granted".
var checkGroups = []struct {
	group berth.CheckGroup
	title string
}{{berth.CheckCluster, "The cluster"}, {"", "What is granted"}, {berth.CheckNamespace, "The namespace"}, {berth.CheckPods, "What a pod reaches"}}

// checkSection is a titled part of a page.
type checkSection struct {
	title string
	rows  []berth.CheckRow
}

func (p *checkPage) write(c berth.InfrastructureCheck) {
	what := fmt.Sprintf("namespace %s of %s, Kubernetes %s", c.Namespace, c.Address, c.ServerVersion)
	if c.Namespace == "" {
		what = fmt.Sprintf("Docker Engine %s at %s", c.ServerVersion, c.Address)
	}
	fmt.Fprintln(p, wrap(c.Name+": "+what, "", p.width))
	known := map[berth.CheckGroup]bool{}
	for _, g := range checkGroups {
		known[g.group] = true
	}
	var groups []checkSection
	for _, g := range checkGroups {
		var rows []berth.CheckRow
		for _, r := range c.Rows {
			if r.Group == g.group || g.group == "" && !known[r.Group] {
				rows = append(rows, r)
			}
		}
		if g.group == "" {
			rows = byProfile(rows)
		}
		if len(rows) == 0 {
			continue
		}
		groups = append(groups, checkSection{g.title, rows})
		for _, r := range rows {
			if n := len([]rune(r.What)); n <= widestWhat {
				p.column = max(p.column, n)
			}
		}
	}
	for _, g := range groups {
		fmt.Fprintf(p, "\n%s\n", g.title)
		p.rows(g.rows)
	}
	p.remedies(c.Rows)
	switch {
	case !c.OK:
		fmt.Fprintln(p, "\nTasks can't run here yet.")
	case failedRow(c):
		fmt.Fprintln(p, "\nTasks can run here; packages and callbacks don't work as configured yet.")
	default:
		fmt.Fprintln(p, "\nTasks can run here.")
	}
}

// byProfile tells the verbs of a profile in one row, and then those that are
// missing, with what each is for.
func byProfile(rows []berth.CheckRow) []berth.CheckRow {
	var out []berth.CheckRow
	for len(rows) > 0 {
		profile := rows[0].Group.Profile()
		all := berth.CheckRow{What: "profile " + profile, Status: berth.CheckOK}
		var missing, rest []berth.CheckRow
		granted := 0
		for _, r := range rows {
			switch {
			case r.Group != rows[0].Group:
				rest = append(rest, r)
				continue
			case r.Status == berth.CheckOK:
				granted++
				continue
			case r.Status == berth.CheckMissing || all.Status == berth.CheckOK:
				all.Status = r.Status
			}
			missing = append(missing, berth.CheckRow{What: "  " + r.What, Status: r.Status, Detail: "needed " + r.Detail})
		}
		all.Detail = fmt.Sprintf("%d of %d rights", granted, granted+len(missing))
		out, rows = append(append(out, all), missing...), rest
	}
	return out
}

const (
	checkIndent = "  "
	statusWidth = 9
	widestWhat  = 30 // what is longer has a line of its own
)

// rows writes what was looked at, its status, and what was found.
func (p *checkPage) rows(rows []berth.CheckRow) {
	before := len(checkIndent) + p.column + 2 + statusWidth
	for _, r := range rows {
		detail := strings.Split(wrap(oneLine(r.Detail), strings.Repeat(" ", before), p.width), "\n")
		what := oneLine(r.What)
		if strings.HasPrefix(r.What, checkIndent) {
			what = checkIndent + what
		}
		if len([]rune(what)) > p.column {
			fmt.Fprintln(p, checkIndent+what)
			what = ""
		}
		fmt.Fprintf(p, "%s%-*s  %s%s\n", checkIndent, p.column, what, p.status(r.Status), strings.TrimLeft(detail[0], " "))
		for _, line := range detail[1:] {
			fmt.Fprintln(p, line)
		}
	}
}

// status writes a status as wide as its column.
func (p *checkPage) status(s berth.CheckStatus) string {
	text := fmt.Sprintf("%-*s", statusWidth, s)
	if !p.colours {
		return text
	}
	colour := map[berth.CheckStatus]string{berth.CheckOK: "32", berth.CheckWarning: "33", berth.CheckMissing: "31", berth.CheckFailed: "31"}[s]
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// remedies says what to do, once for all that the same helps.
func (p *checkPage) remedies(rows []berth.CheckRow) {
	var order []string
	whats := map[string][]string{}
	for _, r := range rows {
		if r.Remedy == "" {
			continue
		}
		if whats[r.Remedy] == nil {
			order = append(order, r.Remedy)
		}
		whats[r.Remedy] = append(whats[r.Remedy], r.What)
	}
	if len(order) > 0 {
		fmt.Fprintln(p, "\nWhat to do")
	}
	for _, remedy := range order {
		fmt.Fprintln(p, wrap(strings.Join(whats[remedy], ", ")+": "+remedy, checkIndent, p.width))
	}
}

func failedRow(c berth.InfrastructureCheck) bool {
	return slices.ContainsFunc(c.Rows, func(r berth.CheckRow) bool { return r.Status == berth.CheckFailed })
}
