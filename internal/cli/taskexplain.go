package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// explanation is what explain tells of a task, in JSON.
type explanation struct {
	ID        string           `json:"id"`
	State     berth.TaskState  `json:"state"`
	Diagnosis *berth.Diagnosis `json:"diagnosis"`
	Message   *string          `json:"message"` // for the cluster's engineer, where the remedy is theirs
	Timeline  []berth.Event    `json:"timeline"`
}

func (a *app) taskExplainCommand() *cobra.Command {
	var message bool
	cmd := &cobra.Command{
		Use: "explain ID", Short: "Say why a task failed or does not start", Args: exactly(1, "the id of a task"),
		Long: "Say why a task failed or does not start: cause, evidence, what to do and who can do it, and what happened when. Where that is the cluster's engineer, " +
			"a message that is ready to be sent to them is part of it; --message prints that alone.",
		Example: "  berth task explain ID\n  berth task explain ID --message | mail -s 'a task does not start' engineer@cluster.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				return a.explain(ctx, service, args[0], message)
			})
		},
	}
	cmd.Flags().BoolVar(&message, "message", false, "print just the message for the cluster's engineer")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) explain(ctx context.Context, service berth.Service, id string, message bool) error {
	task, err := service.Task(ctx, id)
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
	d := task.Diagnosis
	forEngineer := d != nil && d.Remedy.By == berth.RemedyByEngineer
	if forEngineer {
		text := engineerMessage(&task, infrastructureOf(ctx, service, &task))
		e.Message = &text
	}
	switch {
	case !message:
		return a.print(e, func(w io.Writer) { explain(w, task, e) })
	case e.Message != nil:
		_, err := io.WriteString(a.stdout, *e.Message)
		return err
	case d == nil:
		return fmt.Errorf("nothing is wrong with task %s, so there is no message to send", task.ID)
	}
	return fmt.Errorf("task %s needs nothing of the cluster's engineer (%s); what you can do: %s", task.ID, d.Cause, d.Remedy.Text)
}

// infrastructureOf says where a task is; what isn't known stays empty.
func infrastructureOf(ctx context.Context, service berth.Service, task *berth.Task) berth.Infrastructure {
	list, err := service.Infrastructures(ctx)
	if err != nil {
		list = nil // infra.yml can't be read now; the rest can be told all the same
	}
	i := slices.IndexFunc(list, func(i berth.Infrastructure) bool { return i.Name == task.Infrastructure })
	if i < 0 {
		return berth.Infrastructure{Name: task.Infrastructure} // it was taken out of infra.yml
	}
	return list[i]
}

// explainWidth is the width of an explanation, in columns.
const explainWidth = 80

func explain(w io.Writer, task berth.Task, e explanation) {
	const indent = "    "
	fmt.Fprintf(w, "Task %s %s on %s.\n", task.ID, stands(task.State), task.Infrastructure)
	if task.Stale != nil {
		fmt.Fprintf(w, "\nThis may be out of date:\n%s\n", wrap(*task.Stale, indent, explainWidth))
	}
	if d := task.Diagnosis; d != nil {
		fmt.Fprintf(w, "\nWhy: %s (since %s)\n%s\n", d.Cause, utc(d.Since), wrap(d.Summary, indent, explainWidth))
		if d.Remedy.Text != "" {
			fmt.Fprintf(w, "\nWhat to do (%s):\n%s\n", d.Remedy.By, wrap(d.Remedy.Text, indent, explainWidth))
		}
		if len(d.Evidence) > 0 && e.Message == nil { // a message has it
			fmt.Fprintln(w, "\nEvidence:")
			for _, evidence := range d.Evidence {
				fmt.Fprintf(w, "    %s:\n%s\n", clean(evidence.Source), wrap(evidence.Text, indent+"    ", explainWidth))
			}
		}
	} else {
		fmt.Fprintf(w, "\n%s\n", wrap(undiagnosed(&task, e.Timeline, time.Now()), "", explainWidth))
	}
	if e.Message != nil {
		fmt.Fprintf(w, "\nA message to send to the cluster's engineer, with the evidence\n(berth task explain %s --message):\n\n", task.ID)
		quote(w, *e.Message)
	}
	timeline(w, e.Timeline)
}

// stands says a state in a sentence.
func stands(state berth.TaskState) string {
	switch state {
	case berth.StateSucceeded, berth.StateFailed:
		return string(state)
	case berth.StateCancelled, berth.StateLost:
		return "was " + string(state)
	}
	return "is " + string(state)
}

// undiagnosed says how a task stands that nothing is wrong with.
func undiagnosed(task *berth.Task, events []berth.Event, now time.Time) string {
	last := ""
	if len(events) > 0 {
		last = events[len(events)-1].Message
	}
	switch task.State {
	case berth.StateSucceeded:
		text := "Nothing is wrong with it: its program ended with exit code 0"
		if task.StartedAt != nil && task.FinishedAt != nil {
			text += ", " + took(task.FinishedAt.Sub(*task.StartedAt)) + " after it began"
		}
		return text + "."
	case berth.StateCancelled:
		if task.CancelledAt != nil {
			return "It was cancelled on " + utc(*task.CancelledAt) + "."
		}
	case berth.StateRunning:
		text := "Nothing is wrong with it: its program runs"
		if task.StartedAt != nil {
			text += ", and has for " + took(now.Sub(*task.StartedAt))
		}
		return text + "."
	case berth.StateQueued:
		if len(events) > 0 && events[len(events)-1].Type == berth.EventRetrying {
			return "It waits to be tried again: " + oneLine(last) + "."
		}
		if task.Reason != nil {
			return "It " + oneLine(*task.Reason) + ". The first to come is the first to go."
		}
		return "It waits to be let through. The first to come is the first to go."
	case berth.StateLaunching:
		if task.Reason != nil {
			return "Nothing is known to be wrong: " + oneLine(*task.Reason) + "."
		}
		return "Nothing keeps it from going on: its pod is coming up."
	}
	return "Nothing keeps it from going on."
}
