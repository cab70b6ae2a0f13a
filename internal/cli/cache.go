package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cache", Short: "List and clear what calls of workflows gave",
		Long: "Calls of workflows with cache = True are answered by what an equal call gave: one of the same image by its digest, the same function and the same arguments.",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.cacheListCommand(), a.cacheClearCommand())
	return cmd
}

// cacheFlags select cached calls.
func cacheFlags(cmd *cobra.Command, q *berth.CacheQuery) {
	cmd.Flags().StringVar(&q.Package, "package", "", "only calls of functions of this package")
	cmd.Flags().StringVar(&q.Owner, "owner", "", "only those of an owner (on a server others' are an admin's alone)")
}

func (a *app) cacheListCommand() *cobra.Command {
	var q berth.CacheQuery
	cmd := &cobra.Command{
		Use: "list", Short: "List cached calls, newest first", Aliases: []string{"ls"}, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 1 {
				return fmt.Errorf("--limit %d: use 1 or more", q.Limit)
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				page, err := service.Cache(ctx, q)
				if err != nil {
					return err
				}
				if err := a.print(page.Calls, func(w io.Writer) { cacheTable(w, page.Calls) }); err != nil {
					return err
				}
				if page.Next != "" {
					fmt.Fprintf(a.stderr, "berth: there are more: --after %s\n", page.Next)
				}
				return nil
			})
		},
	}
	cacheFlags(cmd, &q)
	cmd.Flags().IntVar(&q.Limit, "limit", 50, "at most this many")
	cmd.Flags().StringVar(&q.After, "after", "", "go on behind this id")
	a.outputFlag(cmd)
	return cmd
}

func cacheTable(w io.Writer, calls []berth.CachedCall) {
	row(w, "ID", "CALL", "VERSION", "TASK", "RUN", "AGE", "RESULT")
	for _, c := range calls {
		name := c.Name
		if c.Package == "" {
			name = shortImage(c.Image)
		}
		result := []rune(oneLine(string(plain(c.Result))))
		if len(result) > 40 {
			result = append(result[:39], '…')
		}
		row(w, c.ID, oneLine(name), c.Version, c.Task, c.Run, age(c.CreatedAt), string(result))
	}
}

func (a *app) cacheClearCommand() *cobra.Command {
	var q berth.CacheQuery
	var older time.Duration
	cmd := &cobra.Command{
		Use: "clear", Short: "Forget cached calls; tasks and runs stay", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("older-than") {
				if older <= 0 {
					return fmt.Errorf("--older-than %s: use a duration above 0, such as 24h", older)
				}
				q.Before = time.Now().Add(-older)
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				n, err := service.ClearCache(ctx, q)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "berth: %d cached calls are forgotten\n", n)
				return nil
			})
		},
	}
	cacheFlags(cmd, &q)
	cmd.Flags().DurationVar(&older, "older-than", 0, "only calls that were cached that long ago, such as 24h")
	return cmd
}
