package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// below is what is said of a number below 0, which looks like a flag.
var below = regexp.MustCompile(`unknown shorthand flag: '[0-9]'`)

func (a *app) clusterScaleCommand() *cobra.Command {
	var group string
	var wait bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "scale NAME COUNT", Short: "Give a cluster more workers, or fewer",
		Long: `Give a group of workers another size. Workers that are too many begin nothing any
more, finish what they compute, and what they hold goes to others before they end.`,
		Args:              exactly(2, "the name of a cluster and a number of workers"),
		ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			count, err := strconv.Atoi(args[1])
			if err != nil {
				return fmt.Errorf("%q: write a number of workers, such as berth cluster scale %s 8; berth cluster adapt has it follow what the engine wants", args[1], args[0])
			}
			return a.resize(cmd, berth.ClusterScale{ID: args[0], Group: group, Count: count}, wait, limit)
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if below.MatchString(err.Error()) {
			return fmt.Errorf("there can't be fewer than 0 workers: berth cluster scale NAME 0 leaves none")
		}
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	cmd.Flags().StringVar(&group, "group", "", "which workers, where there are several groups")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when there are as many")
	cmd.Flags().DurationVar(&limit, "wait-timeout", 0, "wait no longer than that (exit code 124); it goes on")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) clusterAdaptCommand() *cobra.Command {
	var s berth.ClusterScale
	s.Adaptive = true
	cmd := &cobra.Command{
		Use: "adapt NAME --max N [--min N]", Short: "Have a cluster follow how many workers its engine wants",
		Long: `Have the number of workers follow what the engine wants: more at once, fewer when it
has wanted fewer for a while. Workers that compute are not ended.`,
		Args: exactly(1, "the name of a cluster"), ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.ID = args[0]
			return a.resize(cmd, s, false, 0)
		},
	}
	cmd.Flags().IntVar(&s.Min, "min", 0, "at least so many workers")
	cmd.Flags().IntVar(&s.Max, "max", 0, "at most so many workers")
	cmd.Flags().StringVar(&s.Group, "group", "", "which workers, where there are several groups")
	_ = cmd.MarkFlagRequired("max")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) resize(cmd *cobra.Command, s berth.ClusterScale, wait bool, limit time.Duration) error {
	return a.with(cmd, func(ctx context.Context, service berth.Service) error {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		cluster, err := service.ScaleCluster(ctx, s)
		if err != nil {
			return err
		}
		if wait {
			settled := func(c *berth.Cluster) bool {
				for i := range c.Groups {
					g := &c.Groups[i]
					if (s.Group == "" || g.Name == s.Group) && (g.Wanted != s.Count || g.Ready != g.Wanted || g.Draining > 0) {
						return false
					}
				}
				return c.State == berth.ClusterRunning
			}
			if cluster, err = a.awaitCluster(ctx, service, cluster, settled, limit); err != nil {
				return err
			}
		}
		if a.output != "table" {
			return a.print(cluster, nil)
		}
		fmt.Fprintln(a.stderr, "berth: "+clusterStanding(&cluster))
		return nil
	})
}

func (a *app) clusterDeleteCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: "delete NAME...", Short: "End clusters, with all that they have", Aliases: []string{"rm", "stop"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("berth cluster delete takes the name of a cluster, or several; berth cluster list shows them")
			}
			return nil
		},
		ValidArgsFunction: a.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				for _, name := range args {
					if err := a.deleteCluster(ctx, service, name, detach); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return once that is stored")
	return cmd
}

func (a *app) deleteCluster(ctx context.Context, service berth.Service, name string, detach bool) error {
	cluster, err := service.DeleteCluster(ctx, name)
	if err != nil {
		return err
	}
	if cluster.State.Terminal() {
		fmt.Fprintf(a.stderr, "berth: cluster %s had ended already (%s)\n", cluster.Name, cluster.State)
		return nil
	}
	if detach {
		return nil
	}
	line := a.newClusterLine()
	defer line.close()
	for now, err := range service.WatchCluster(ctx, cluster.ID) {
		if ctx.Err() != nil {
			line.close()
			fmt.Fprintf(a.stderr, "berth: cluster %s goes on ending\n", cluster.Name)
			return exitError(berth.ExitCancelled)
		}
		if err != nil {
			return err
		}
		cluster = now
		line.show(&cluster)
	}
	line.close()
	fmt.Fprintf(a.stderr, "berth: cluster %s is gone, with all that it had\n", cluster.Name)
	return nil
}
