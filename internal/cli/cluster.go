package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Run compute clusters, such as of Dask", Aliases: []string{"clusters"},
		Long: `A compute cluster is a head and groups of workers of an engine, such as Dask, as
pods of your namespace. It ends by itself when it was idle for a while.

  berth cluster create dask --name analysis --software IMAGE --workers 4
  berth cluster connect analysis       open a tunnel, and print the Python to paste
  berth cluster scale analysis 8
  berth cluster delete analysis`,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.clusterCreateCommand(), a.clusterListCommand(), a.clusterGetCommand(), a.clusterScaleCommand(), a.clusterAdaptCommand(), a.clusterLogsCommand(), a.clusterConnectCommand(), a.clusterDeleteCommand())
	return cmd
}

func (a *app) clusterListCommand() *cobra.Command {
	var q berth.ClusterQuery
	cmd := &cobra.Command{
		Use: "list", Short: "List clusters", Aliases: []string{"ls"}, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				page, err := service.Clusters(ctx, q)
				if err != nil {
					return err
				}
				if a.output == "table" && len(page.Clusters) == 0 {
					fmt.Fprintln(a.stderr, "berth: there are no clusters; berth cluster create dask --software IMAGE --workers 4 makes one")
					return nil
				}
				return a.print(page.Clusters, func(w io.Writer) {
					row(w, "NAME", "ENGINE", "STATE", "WORKERS", "INFRASTRUCTURE", "IDLE", "ENDS IN", "AGE", "OWNER", "NOTE")
					for i := range page.Clusters {
						c := &page.Clusters[i]
						ready, wanted := workersOf(c)
						idle, ends := "", ""
						if c.IdleSince != nil {
							idle = age(*c.IdleSince)
						}
						if c.EndsAt != nil {
							ends = age(time.Now().Add(-time.Until(*c.EndsAt)))
						}
						row(w, c.Name, c.Engine, string(c.State), fmt.Sprintf("%d/%d", ready, wanted), c.Infrastructure, idle, ends, age(c.CreatedAt), c.Owner, short(clusterNote(c), 60))
					}
				})
			})
		},
	}
	cmd.Flags().BoolVarP(&q.All, "all", "a", false, "those that have ended as well")
	cmd.Flags().StringVar(&q.Infrastructure, "on", "", "of an infrastructure only")
	cmd.Flags().IntVar(&q.Limit, "limit", 100, "at most this many, newest first")
	cmd.Flags().StringVar(&q.After, "after", "", "those that are older than the one with this id")
	a.outputFlag(cmd)
	return cmd
}

// short is a text that is cut to a number of letters.
func short(text string, most int) string {
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return text
}

// workersOf counts the workers of a cluster, and how many are wanted.
func workersOf(c *berth.Cluster) (ready, wanted int) {
	for i := range c.Groups {
		ready += c.Groups[i].Ready
		wanted += c.Groups[i].Wanted
	}
	return ready, wanted
}

// clusterDiagnosis is what keeps a cluster from being what it is to be.
func clusterDiagnosis(c *berth.Cluster) *berth.Diagnosis {
	if c.Diagnosis != nil {
		return c.Diagnosis
	}
	for i := range c.Groups {
		if c.Groups[i].Diagnosis != nil {
			return c.Groups[i].Diagnosis
		}
	}
	return nil
}

// clusterNote says in a line what there is to say of a cluster.
func clusterNote(c *berth.Cluster) string {
	if d := clusterDiagnosis(c); d != nil {
		return oneLine(string(d.Cause) + ": " + d.Summary)
	}
	if c.Reason != nil {
		return oneLine(*c.Reason)
	}
	if len(c.Warnings) > 0 {
		return oneLine(c.Warnings[0])
	}
	return ""
}

// clusterStanding says in a line how a cluster stands.
func clusterStanding(c *berth.Cluster) string {
	text := "cluster " + c.Name + " " + string(c.State)
	if c.State == berth.ClusterRunning {
		ready, wanted := workersOf(c)
		text += fmt.Sprintf(", %d of %s ready", ready, plural(wanted, "worker"))
	}
	if note := clusterNote(c); note != "" {
		text += ": " + note
	}
	return text
}

func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return strconv.Itoa(n) + " " + word
}

func (a *app) clusterGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show how a cluster stands", Args: exactly(1, "the name or the id of a cluster"), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				cluster, err := service.Cluster(ctx, args[0])
				if err != nil {
					return err
				}
				return a.showCluster(&cluster)
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

// showCluster prints a cluster.
func (a *app) showCluster(c *berth.Cluster) error {
	if err := a.print(c, func(w io.Writer) { clusterTable(w, c) }); err != nil || a.output != "table" {
		return err
	}
	return nil
}

func clusterTable(w io.Writer, c *berth.Cluster) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s:\t%s\n", name, value)
		}
	}
	line("Name", c.Name)
	line("Id", c.ID)
	line("Engine", c.Engine)
	state := string(c.State)
	if c.Reason != nil {
		state += ": " + oneLine(*c.Reason)
	}
	line("State", state)
	line("Infrastructure", c.Infrastructure)
	line("Image", c.Image)
	line("Owner", c.Owner)
	if c.Dashboard != nil {
		line("Dashboard", *c.Dashboard)
	}
	line("Created", c.CreatedAt.Local().Format(time.DateTime))
	if c.FinishedAt != nil {
		line("Finished", c.FinishedAt.Local().Format(time.DateTime))
	}
	if c.Clients != nil {
		line("Clients", strconv.Itoa(*c.Clients))
	}
	if c.IdleSince != nil {
		line("Idle since", c.IdleSince.Local().Format(time.DateTime))
	}
	if c.EndsAt != nil {
		line("Ends by itself", c.EndsAt.Local().Format(time.DateTime)+" if nothing changes")
	}
	if c.Head.Task != nil {
		line("Head", strings.TrimSpace("task "+*c.Head.Task+" "+versionsLine(c.Head.Versions)))
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		text := fmt.Sprintf("%d of %d ready", g.Ready, g.Wanted)
		if g.Waiting > 0 {
			text += fmt.Sprintf(", %d waiting", g.Waiting)
		}
		if g.Draining > 0 {
			text += fmt.Sprintf(", %d ending", g.Draining)
		}
		for _, cause := range sortedKeys(g.Lost) {
			text += fmt.Sprintf(", %d lost (%s)", g.Lost[cause], cause)
		}
		line("Workers "+g.Name, text)
	}
	for _, warning := range c.Warnings {
		line("Warning", oneLine(warning))
	}
	if d := clusterDiagnosis(c); d != nil {
		line("Diagnosis", string(d.Cause)+": "+oneLine(d.Summary))
		if d.Remedy.Text != "" {
			line("What to do ("+string(d.Remedy.By)+")", oneLine(d.Remedy.Text))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// versionsLine tells the versions that matter.
func versionsLine(versions map[string]string) string {
	var out []string
	for _, name := range []string{"python", "dask", "distributed"} {
		if v := versions[name]; v != "" {
			out = append(out, name+" "+v)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// completeClusters completes names of clusters.
func (a *app) completeClusters(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_ = a.with(cmd, func(ctx context.Context, service berth.Service) error {
		page, err := service.Clusters(ctx, berth.ClusterQuery{})
		for i := range page.Clusters {
			names = append(names, page.Clusters[i].Name)
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}
