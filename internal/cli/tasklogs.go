package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) taskLogsCommand() *cobra.Command {
	var q berth.LogQuery
	var since string
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Show a task's output, also long after its pod is gone", Args: exactly(1, "the id of a task"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Tail < 0 || q.Attempt < 0 {
				return fmt.Errorf("--tail and --attempt can't be negative")
			}
			if since != "" {
				at, err := parseSince(since)
				if err != nil {
					return err
				}
				q.Since = at
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				for chunk, err := range service.TaskLogs(ctx, args[0], q) {
					if ctx.Err() != nil {
						return exitError(berth.ExitCancelled)
					}
					if err != nil {
						return err
					}
					if chunk.Gap != "" {
						fmt.Fprintln(a.stderr, "berth: "+oneLine(chunk.Gap))
						continue
					}
					if _, err := a.stdout.Write(chunk.Data); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&q.Follow, "follow", "f", false, "go on until the task has ended")
	flags.IntVar(&q.Attempt, "attempt", 0, "of this attempt (default: the last)")
	flags.IntVar(&q.Tail, "tail", 0, "only the last lines")
	flags.StringVar(&since, "since", "", "only what is newer: 10m, or a time such as 2026-01-02T15:04:05Z")
	flags.BoolVarP(&q.Timestamps, "timestamps", "t", false, "begin each line with its time")
	return cmd
}

func parseSince(text string) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-d), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, fmt.Errorf("--since %s: write a duration such as 10m, or a time such as 2026-01-02T15:04:05Z", text)
	}
	return at, nil
}
