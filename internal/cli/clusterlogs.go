package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) clusterLogsCommand() *cobra.Command {
	var f logsFlags
	var group string
	var all bool
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show what a cluster's head wrote, or its workers",
		Long: `Show what the head of a cluster wrote, or with --group the workers of a group, each
line behind the worker's name. The logs stay when the pods are gone; berth task list
-l berth.run/cluster=ID lists the tasks that the pods are.`,
		Args: exactly(1, "the name or the id of a cluster"), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := f.read(args); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				cluster, err := service.Cluster(ctx, args[0])
				if err != nil {
					return err
				}
				switch {
				case (group == "" && !all || group == berth.HeadGroup) && cluster.Head.Task == nil:
					return fmt.Errorf("cluster %s has no head yet", cluster.Name)
				case group == "" && !all, group == berth.HeadGroup:
					err = a.showLog(ctx, service, *cluster.Head.Task, "", f.query)
				default:
					labels := map[string]string{berth.LabelCluster: cluster.ID}
					if group != "" {
						if !hasGroup(&cluster, group) {
							return fmt.Errorf("cluster %s has no group %q: it has %s", cluster.Name, group, groupNames(&cluster))
						}
						labels[berth.LabelGroup] = group
					}
					err = a.showLogs(ctx, service, nil, labels, f.query)
				}
				if ctx.Err() != nil {
					return exitError(berth.ExitCancelled)
				}
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.query.Follow, "follow", "f", false, "go on until it has ended")
	flags.StringVar(&group, "group", "", "of the workers of a group")
	flags.BoolVar(&all, "all", false, "of the head and all workers")
	flags.IntVar(&f.query.Tail, "tail", 0, "only the last lines, of those that are asked for otherwise")
	flags.StringVar(&f.since, "since", "", "only what is newer: 10m, or a time such as 2026-01-02T15:04:05Z")
	flags.StringVar(&f.query.Grep, "grep", "", "only lines that match a regular expression (RE2)")
	flags.BoolVarP(&f.query.Timestamps, "timestamps", "t", false, "begin each line with its time")
	cmd.MarkFlagsMutuallyExclusive("group", "all")
	a.rawFlag(cmd)
	return cmd
}

func hasGroup(c *berth.Cluster, name string) bool {
	for i := range c.Spec.Workers {
		if c.Spec.Workers[i].Name == name {
			return true
		}
	}
	return false
}

func groupNames(c *berth.Cluster) string {
	text := berth.HeadGroup
	for i := range c.Spec.Workers {
		text += ", " + c.Spec.Workers[i].Name
	}
	return text
}
