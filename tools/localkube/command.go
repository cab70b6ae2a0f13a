package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/tools/localkube/internal/build"
	"github.com/berth-run/berth/tools/localkube/internal/cluster"
	"github.com/berth-run/berth/tools/localkube/internal/progress"
	"github.com/berth-run/berth/tools/localkube/internal/source"
)

// tool is what the verbs share.
type tool struct {
	name     string
	tree     source.Tree
	progress *progress.Printer
}

func command() *cobra.Command {
	t := &tool{progress: progress.New(os.Stderr)}
	root := &cobra.Command{
		Use: "localkube", Short: "Real Kubernetes on a bare Debian machine", SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			folder, err := os.Getwd()
			if err != nil {
				return err
			}
			executable, _ := os.Executable()
			t.tree, err = source.Find(os.Getenv, folder, filepath.Dir(executable))
			return err
		},
	}
	root.PersistentFlags().StringVar(&t.name, "name", "default", "which cluster")
	root.AddCommand(t.up(), t.down(), t.status(), t.restart(), t.stop(), t.start(), t.load(), t.kubeconfig(), t.logs(), simulatedLogs())
	return root
}

func (t *tool) cluster() (*cluster.Cluster, error) { return cluster.New(t.tree.Home, t.name) }

func (t *tool) up() *cobra.Command {
	var wanted cluster.Wanted
	var with []string
	cmd := &cobra.Command{
		Use: "up", Short: "Bring a cluster up; one that is up stays as it is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cluster.Root(); err != nil {
				return err
			}
			for _, part := range with {
				switch part {
				case "dns":
					wanted.DNS = true
				case "metrics":
					wanted.Metrics = true
				default:
					return fmt.Errorf("--with %s: choose of dns, metrics", part)
				}
			}
			if wanted.KwokNodes < 0 || wanted.MaxPods < 1 || wanted.MaxPods > 4000 {
				return errors.New("--kwok-nodes must be 0 or more, --max-pods 1 to 4000")
			}
			if !cmd.Flags().Changed("max-pods") {
				wanted.MaxPods = 0 // the usual number, or what a running cluster has
			}
			if wanted.KwokNodes > 0 && !wanted.ControlPlaneOnly {
				return errors.New("--kwok-nodes goes with --control-plane-only: simulated pods and real ones don't mix")
			}
			if wanted.ControlPlaneOnly && (wanted.DNS || wanted.Metrics) {
				return errors.New("--with is for clusters with a node: leave out --control-plane-only")
			}
			c, err := t.cluster()
			if err != nil {
				return err
			}
			cache, err := build.CacheFolder()
			if err != nil {
				return err
			}
			return c.Up(cmd.Context(), wanted, &build.Builder{Components: t.tree.Components(), Cache: cache, Progress: t.progress}, t.progress)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&wanted.ControlPlaneOnly, "control-plane-only", false, "no kubelet and no containerd")
	flags.IntVar(&wanted.KwokNodes, "kwok-nodes", 0, "simulated nodes, for tests of scale")
	flags.StringSliceVar(&with, "with", nil, "more parts: dns, metrics")
	flags.IntVar(&wanted.MaxPods, "max-pods", cluster.MaxPods, "pods of the node")
	return cmd
}

func (t *tool) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "End a cluster and leave nothing of it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cluster.Root(); err != nil {
				return err
			}
			if all {
				var failed error
				for _, c := range cluster.Removable(t.tree.Home) {
					failed = errors.Join(failed, c.Down(cmd.Context(), t.progress))
				}
				return failed
			}
			c, err := t.cluster()
			if err != nil {
				return err
			}
			return c.Down(cmd.Context(), t.progress)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all clusters of this checkout, and those of checkouts that are gone")
	return cmd
}

func (t *tool) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how clusters stand; with --name, exits with 1 when that one is not up", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := cluster.Names(t.tree.Home)
			named := cmd.Flags().Changed("name")
			if named || len(names) == 0 {
				names = []string{t.name}
			}
			for _, name := range names {
				c, err := cluster.New(t.tree.Home, name)
				if err != nil {
					return err
				}
				if !c.Status(cmd.Context(), os.Stdout) && named {
					return fmt.Errorf("cluster %s is not up", name)
				}
			}
			return nil
		},
	}
}

func (t *tool) restart() *cobra.Command {
	var kill bool
	cmd := &cobra.Command{
		Use: "restart COMPONENT", Short: "End a component, such as kube-apiserver, and start it again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			c, err := t.cluster()
			if err != nil {
				return err
			}
			return t.progress.Step("Restarted "+arguments[0], func() error { return c.Restart(cmd.Context(), arguments[0], kill) })
		},
	}
	cmd.Flags().BoolVar(&kill, "kill", false, "give it no time to end")
	return cmd
}

func (t *tool) stop() *cobra.Command {
	var kill bool
	cmd := &cobra.Command{
		Use: "stop COMPONENT", Short: "End a component until localkube start", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			c, err := t.cluster()
			if err != nil {
				return err
			}
			return t.progress.Step("Stopped "+arguments[0], func() error { return c.Stop(cmd.Context(), arguments[0], kill) })
		},
	}
	cmd.Flags().BoolVar(&kill, "kill", false, "give it no time to end")
	return cmd
}

func (t *tool) start() *cobra.Command {
	return &cobra.Command{
		Use: "start COMPONENT", Short: "Start a component that was stopped", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			c, err := t.cluster()
			if err != nil {
				return err
			}
			return t.progress.Step("Started "+arguments[0], func() error { return c.Start(cmd.Context(), arguments[0]) })
		},
	}
}

func (t *tool) load() *cobra.Command {
	return &cobra.Command{
		Use: "load FILE.tar", Short: "Put the images of an archive on the node", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			c, err := t.cluster()
			if err != nil {
				return err
			}
			return t.progress.Step("Loaded "+arguments[0], func() error { return c.Load(cmd.Context(), arguments[0]) })
		},
	}
}

func (t *tool) kubeconfig() *cobra.Command {
	var path bool
	cmd := &cobra.Command{
		Use: "kubeconfig", Short: "Print the administrator's kubeconfig", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := t.cluster()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(c.Kubeconfig())
			if err != nil {
				return fmt.Errorf("cluster %s is not up: bring it up with localkube up --name %s", t.name, t.name)
			}
			if path {
				content = []byte(c.Kubeconfig() + "\n")
			}
			_, err = os.Stdout.Write(content)
			return err
		},
	}
	cmd.Flags().BoolVar(&path, "path", false, "print its path")
	return cmd
}

func (t *tool) logs() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs COMPONENT", Short: "Show what a component wrote", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			c, err := t.cluster()
			if err != nil {
				return err
			}
			file := c.Processes().Log(filepath.Base(arguments[0]))
			log, err := os.Open(file)
			if err != nil {
				return fmt.Errorf("cluster %s has no log of %s: %w; localkube status names its components", t.name, arguments[0], err)
			}
			defer log.Close()
			if follow {
				return tail(cmd.Context(), file)
			}
			_, err = io.Copy(os.Stdout, log)
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on")
	return cmd
}

func tail(ctx context.Context, file string) error {
	command := exec.CommandContext(ctx, "tail", "-n", "+1", "-f", file)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	err := command.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}
