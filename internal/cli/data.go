package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) dataCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "data", Short: "Reach the files that the tasks of an infrastructure share",
		Long: `Reach the filesystem that the tasks of an infrastructure share (mount_dfs in infra.yml)
from outside. Paths are as tasks see them (/data/x) or relative to the mount (x).

It is reached by a pod of its own, a task named data, which ends by itself a minute
after it was last used.`,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.dataListCommand(), a.dataGetCommand(), a.dataPutCommand(), a.dataRemoveCommand(), a.dataCleanCommand())
	return cmd
}

// dataFlags are the flags of every verb on shared files.
type dataFlags struct {
	on        string
	recursive bool
}

func (a *app) dataFlags(cmd *cobra.Command, f *dataFlags) {
	cmd.Flags().StringVar(&f.on, "on", "", "infrastructure whose files are meant (default: default: of infra.yml, or the only one)")
	_ = cmd.RegisterFlagCompletionFunc("on", a.completeInfrastructures)
}

func (f *dataFlags) query(cmd *cobra.Command, path string) (berth.DataQuery, error) {
	if cmd.Flags().Changed("on") && f.on == "" {
		return berth.DataQuery{}, fmt.Errorf("--on is empty: give it a value, or leave it out")
	}
	if strings.Contains(f.on, "=") {
		return berth.DataQuery{}, fmt.Errorf("--on %s: files are on one infrastructure: give its name, see berth infra list", f.on)
	}
	return berth.DataQuery{Infrastructure: f.on, Path: path, Recursive: f.recursive}, nil
}

// withData opens the service for a verb on shared files. An interrupt ends it
// in order, so that nothing half done is left behind.
func (a *app) withData(cmd *cobra.Command, fn func(context.Context, berth.Service) error) error {
	return a.with(cmd, func(ctx context.Context, service berth.Service) error {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		told := time.AfterFunc(2*time.Second, func() { fmt.Fprintln(a.stderr, "berth: waiting for the pod that reaches the files") })
		defer told.Stop()
		err := fn(context.WithValue(ctx, answeredKey{}, told), service)
		if err != nil && ctx.Err() != nil {
			fmt.Fprintln(a.stderr, "berth: interrupted; nothing half done was left behind")
			return exitError(berth.ExitCancelled)
		}
		return err
	})
}

type answeredKey struct{}

// answered notes that the pod that reaches the files is there.
func answered(ctx context.Context) {
	if told, ok := ctx.Value(answeredKey{}).(*time.Timer); ok {
		told.Stop()
	}
}

func (a *app) dataListCommand() *cobra.Command {
	var f dataFlags
	var long bool
	cmd := &cobra.Command{
		Use: "ls [PATH]", Short: "List shared files", Aliases: []string{"list"},
		Long:    "List the entries of a shared directory by name, or a file; without PATH the mount itself. Directories end in /, symlinks in @ unless -l shows where they lead.",
		Example: "  berth data ls\n  berth data ls -l /data/results --on site-a",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s takes one path at most, and got %d; see %s --help", cmd.CommandPath(), len(args), cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: a.completeData(&f, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			where := ""
			if len(args) == 1 {
				where = args[0]
			}
			q, err := f.query(cmd, where)
			if err != nil {
				return err
			}
			return a.withData(cmd, func(ctx context.Context, service berth.Service) error {
				entries := []berth.DataEntry{}
				for entry, err := range service.ListData(ctx, q) {
					if err != nil {
						return err
					}
					answered(ctx)
					entries = append(entries, entry)
				}
				return a.print(entries, func(w io.Writer) { listData(w, entries, long) })
			})
		},
	}
	a.dataFlags(cmd, &f)
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with mode, owner, size and time")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "list all that is below, too")
	a.outputFlag(cmd)
	return cmd
}

func listData(w io.Writer, entries []berth.DataEntry, long bool) {
	if long && len(entries) > 0 {
		row(w, "MODE", "OWNER", "SIZE", "MODIFIED", "PATH")
	}
	for _, e := range entries {
		name := oneLine(strconv.Quote(e.Path))
		if plain := oneLine(e.Path); plain == e.Path {
			name = plain
		}
		switch {
		case e.Type == berth.DataDirectory:
			name += "/"
		case e.Type == berth.DataSymlink && long && e.Target != nil:
			name += " -> " + oneLine(*e.Target)
		case e.Type == berth.DataSymlink:
			name += "@"
		}
		if !long {
			fmt.Fprintln(w, name)
			continue
		}
		size := strconv.FormatInt(e.Size, 10)
		if e.Type != berth.DataFile {
			size = "-"
		}
		row(w, e.Mode, fmt.Sprintf("%d:%d", e.UID, e.GID), size, e.ModifiedAt.Format(time.RFC3339), name)
	}
}

func (a *app) dataRemoveCommand() *cobra.Command {
	var f dataFlags
	cmd := &cobra.Command{
		Use: "rm PATH...", Short: "Remove shared files", Aliases: []string{"remove"},
		Long:              "Remove shared files and empty directories; with -r directories with all that is in them. A symlink is removed itself.",
		Args:              atLeast(1, "one path or more"),
		ValidArgsFunction: a.completeData(&f, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withData(cmd, func(ctx context.Context, service berth.Service) error {
				for _, arg := range args {
					q, err := f.query(cmd, arg)
					if err == nil && arg == "" {
						err = fmt.Errorf("a path is empty")
					}
					if err == nil {
						err = service.RemoveData(ctx, q)
					}
					if err != nil {
						return err
					}
					answered(ctx)
				}
				return nil
			})
		},
	}
	a.dataFlags(cmd, &f)
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "r", false, "directories with all that is in them")
	return cmd
}

// completeData completes shared paths in the argument of that number, or in all
// for -1. It asks only where somebody serves them already quickly: it gives up
// after a moment.
func (a *app) completeData(f *dataFlags, argument int) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if argument >= 0 && len(args) != argument {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var paths []string
		_ = a.with(cmd, func(ctx context.Context, service berth.Service) error {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			folder, _ := path.Split(begun)
			for e, err := range service.ListData(ctx, berth.DataQuery{Infrastructure: f.on, Path: folder}) {
				if err != nil {
					return err
				}
				name := folder + path.Base(e.Path)
				if e.Type == berth.DataDirectory {
					name += "/"
				}
				paths = append(paths, name)
			}
			return nil
		})
		return paths, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}
