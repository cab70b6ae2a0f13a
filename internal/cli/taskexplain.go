package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// explanation is what explain tells of a task, in JSON.
type explanation struct {
	ID        string           `json:"id"`
	State     berth.TaskState  `json:"state"`
	Diagnosis *berth.Diagnosis `json:"diagnosis"`
	Timeline  []berth.Event    `json:"timeline"`
}

func (a *app) taskExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain ID", Short: "Say why a task failed or does not start", Args: exactly(1, "the id of a task"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				task, err := service.Task(ctx, args[0])
				if err != nil {
					return err
				}
				e := explanation{ID: task.ID, State: task.State, Diagnosis: task.Diagnosis, Timeline: []berth.Event{}}
				for event, err := range service.TaskEvents(ctx, task.ID, 0, false) {
					if err != nil {
						return err
					}
					e.Timeline = append(e.Timeline, event)
				}
				return a.print(e, func(w io.Writer) { explain(w, task, e) })
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func explain(w io.Writer, task berth.Task, e explanation) {
	const indent, width = "    ", 100
	fmt.Fprintf(w, "Task %s is %s on %s.\n", task.ID, task.State, task.Infrastructure)
	if task.Stale != nil {
		fmt.Fprintf(w, "\nThis may be out of date:\n%s\n", wrap(*task.Stale, indent, width))
	}
	d := task.Diagnosis
	switch {
	case d != nil:
		fmt.Fprintf(w, "\nWhy: %s (since %s)\n%s\n", d.Cause, d.Since.UTC().Format("2006-01-02 15:04:05Z"), wrap(d.Summary, indent, width))
		if d.Remedy.Text != "" {
			fmt.Fprintf(w, "\nWhat to do (%s):\n%s\n", d.Remedy.By, wrap(d.Remedy.Text, indent, width))
		}
		if len(d.Evidence) > 0 {
			fmt.Fprintln(w, "\nEvidence:")
			for _, evidence := range d.Evidence {
				fmt.Fprintf(w, "    %s:\n%s\n", clean(evidence.Source), wrap(evidence.Text, indent+"    ", width))
			}
		}
	case task.State == berth.StateSucceeded:
		fmt.Fprintln(w, "\nNothing is wrong with it: its program ended with exit code 0.")
	default:
		fmt.Fprintln(w, "\nNothing keeps it from going on.")
	}
	fmt.Fprintln(w, "\nTimeline:")
	for _, event := range e.Timeline {
		attempt := ""
		if event.Attempt > 1 {
			attempt = fmt.Sprintf(" (attempt %d)", event.Attempt)
		}
		fmt.Fprintf(w, "    %s  %-15s %s%s\n", event.At.UTC().Format("15:04:05.000"), event.Type, oneLine(event.Message), attempt)
	}
}

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
