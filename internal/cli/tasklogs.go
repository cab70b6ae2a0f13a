package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) taskLogsCommand() *cobra.Command {
	var q berth.LogQuery
	var since, step string
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Show a task's output, also long after its pod is gone", Args: exactly(1, "the id of a task"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Tail < 0 || q.Attempt < 0 {
				return fmt.Errorf("--tail and --attempt can't be negative")
			}
			if step != "" && q.Tail > 0 {
				return fmt.Errorf("--tail with --step: choose one of them")
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
				if step != "" {
					var err error
					if q.Step, err = stepNumber(ctx, service, args[0], step); err != nil {
						return err
					}
				}
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
	flags.StringVar(&step, "step", "", "only of this step, by its name or number")
	flags.IntVar(&q.Tail, "tail", 0, "only the last lines")
	flags.StringVar(&since, "since", "", "only what is newer: 10m, or a time such as 2026-01-02T15:04:05Z")
	flags.BoolVarP(&q.Timestamps, "timestamps", "t", false, "begin each line with its time")
	return cmd
}

// stepNumber finds a step by its name, or by its number from 1 on.
func stepNumber(ctx context.Context, service berth.Service, id, step string) (int, error) {
	task, err := service.Task(ctx, id)
	if err != nil {
		return 0, err
	}
	var names []string
	for i := range task.Spec.Steps {
		if task.Spec.Steps[i].Name == step {
			return i + 1, nil
		}
		names = append(names, task.Spec.Steps[i].Name)
	}
	if n, err := strconv.Atoi(step); err == nil && n >= 1 && n <= len(names) {
		return n, nil
	}
	if len(names) == 0 {
		return 0, fmt.Errorf("task %s has no steps", id)
	}
	return 0, fmt.Errorf("task %s has no step %s; its steps are %s", id, step, strings.Join(names, ", "))
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
