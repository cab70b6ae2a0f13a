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

func (a *app) taskEventsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "events ID", Short: "Show what happened to a task", Args: exactly(1, "the id of a task"),
		Long: "Show what happened to a task, in order. With -o json and -f one JSON object a line.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				var all []berth.Event
				for event, err := range service.TaskEvents(ctx, args[0], 0, follow) {
					if ctx.Err() != nil {
						return exitError(berth.ExitCancelled)
					}
					if err != nil {
						return err
					}
					if a.output != "table" {
						if all = append(all, event); follow {
							if err := a.printLine(event); err != nil {
								return err
							}
						}
						continue
					}
					fmt.Fprintf(a.stdout, "%s  %d  %-15s %s\n", event.At.UTC().Format("2006-01-02T15:04:05.000Z"), event.Attempt, event.Type, oneLine(event.Message))
				}
				if a.output != "table" && !follow {
					return a.print(append([]berth.Event{}, all...), nil)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task has ended")
	a.outputFlag(cmd)
	return cmd
}
