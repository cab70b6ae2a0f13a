package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) taskCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "task", Short: "List, watch, explain and cancel tasks", Aliases: []string{"tasks"},
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.taskListCommand(), a.taskGetCommand(), a.taskWaitCommand(), a.taskLogsCommand(),
		a.taskMetricsCommand(), a.taskExplainCommand(), a.taskEventsCommand(), a.taskCancelCommand(), a.taskRetryCommand())
	for _, sub := range cmd.Commands() {
		if sub.Name() != "list" {
			sub.ValidArgsFunction = a.completeTasks
		}
	}
	return cmd
}

func (a *app) completeTasks(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	_ = a.with(cmd, func(ctx context.Context, service berth.Service) error {
		page, err := service.Tasks(ctx, berth.TaskQuery{Limit: 50})
		for _, task := range page.Tasks {
			ids = append(ids, task.ID+"\t"+string(task.State)+" "+oneLine(task.Image))
		}
		return err
	})
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) taskListCommand() *cobra.Command {
	var q berth.TaskQuery
	var states, labels []string
	var arrays bool
	cmd := &cobra.Command{
		Use: "list", Short: "List tasks, newest first", Aliases: []string{"ls"}, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, state := range states {
				known := false
				for _, s := range berth.TaskStates {
					known = known || state == string(s)
				}
				if !known {
					return fmt.Errorf("--state %s: choose of %v", state, berth.TaskStates)
				}
				q.States = append(q.States, berth.TaskState(state))
			}
			var err error
			if q.Labels, err = readLabels(labels); err != nil {
				return err
			}
			if q.Limit < 1 {
				return fmt.Errorf("--limit %d: use 1 or more", q.Limit)
			}
			if arrays {
				return a.listArrays(cmd, berth.ArrayQuery{Infrastructure: q.Infrastructure, Owner: q.Owner, Limit: q.Limit, After: q.After})
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				page, err := service.Tasks(ctx, q)
				if err != nil {
					return err
				}
				if err := a.print(page.Tasks, func(w io.Writer) { taskTable(w, page.Tasks, terminalWidth(a.stdout)) }); err != nil {
					return err
				}
				if page.Next != "" {
					fmt.Fprintf(a.stderr, "berth: there are more: --after %s\n", page.Next)
				}
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&states, "state", nil, "only tasks in these states")
	flags.StringVar(&q.Infrastructure, "on", "", "only tasks of an infrastructure")
	flags.StringVar(&q.Name, "name", "", "only tasks of that name")
	flags.StringArrayVarP(&labels, "label", "l", nil, "only tasks with a label K=V")
	flags.StringVar(&q.Owner, "owner", "", "only tasks of an owner (on a server others' tasks are shown to admins alone)")
	flags.StringVar(&q.Array, "array", "", "only tasks of an array, by its id")
	flags.BoolVar(&arrays, "arrays", false, "list arrays instead, a line each")
	for _, other := range []string{"state", "name", "label", "array"} {
		cmd.MarkFlagsMutuallyExclusive("arrays", other)
	}
	flags.IntVar(&q.Limit, "limit", 50, "at most this many")
	flags.StringVar(&q.After, "after", "", "go on behind this id")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) taskGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a task or an array", Args: exactly(1, "the id of a task or an array"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				if berth.IsArrayID(args[0]) {
					array, err := service.Array(ctx, args[0])
					if err != nil {
						return err
					}
					return a.print(array, func(w io.Writer) { arrayPage(w, array) })
				}
				task, err := service.Task(ctx, args[0])
				if err != nil {
					return err
				}
				return a.print(task, func(w io.Writer) { taskPage(w, task) })
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

// taskPage shows one task, field by field.
func taskPage(w io.Writer, t berth.Task) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, oneLine(value))
		}
	}
	field("Task", t.ID)
	if t.Name != nil {
		field("Name", *t.Name)
	}
	if t.Array != nil {
		field("Array", fmt.Sprintf("%s, index %d", t.Array.ID, t.Array.Index))
		field("Item", t.Array.Item)
	}
	if t.Orphan {
		field("Orphan", "found by its pod: this store did not know it, being an older copy, or one that is in use elsewhere too")
	}
	field("State", string(t.State))
	field("On", t.Infrastructure)
	field("Image", t.Image)
	if len(t.Spec.Entrypoint) > 0 {
		field("Entrypoint", strings.Join(t.Spec.Entrypoint, " "))
	}
	if len(t.Spec.Args) > 0 {
		field("Args", fmt.Sprintf("%q", t.Spec.Args))
	}
	field("Attempt", strconv.Itoa(t.Attempt))
	if t.ExitCode != nil {
		field("Exit code", strconv.Itoa(*t.ExitCode))
	}
	field("Owner", t.Owner)
	if t.Pod != nil {
		field("Pod", *t.Pod)
	}
	if t.Node != nil {
		field("Node", *t.Node)
	}
	field("Created", t.CreatedAt.Format(time.RFC3339))
	if t.StartedAt != nil {
		field("Started", t.StartedAt.Format(time.RFC3339))
	}
	if t.FinishedAt != nil {
		field("Finished", t.FinishedAt.Format(time.RFC3339))
	}
	if c := t.Spec.Call; c != nil {
		field("Function", c.Package+"@"+c.Version+" "+c.Function)
		if t.Result != nil {
			field("Result", string(plain(t.Result)))
		}
	}
	if t.Usage.CPUSeconds != nil {
		field("CPU used", cpuSeconds(*t.Usage.CPUSeconds))
	}
	if t.Usage.MemoryPeakBytes != nil {
		field("Memory peak", berth.FormatBytes(*t.Usage.MemoryPeakBytes))
	}
	if n := t.Usage.Network; n != nil {
		field("Network", fmt.Sprintf("%s sent, %s received through the proxy, in %d connections", berth.FormatBytes(n.SentBytes), berth.FormatBytes(n.ReceivedBytes), n.Connections))
	}
	for i, s := range t.Steps {
		field(fmt.Sprintf("Step %d", i+1), describeStep(s))
	}
	if t.Stale != nil {
		field("Out of date", *t.Stale)
	}
	if t.Waiting() && t.Reason != nil && t.Diagnosis == nil {
		field("Why", *t.Reason)
	}
	if d := t.Diagnosis; d != nil {
		field("Cause", string(d.Cause))
		field("Summary", d.Summary)
		if d.Remedy.Text != "" {
			field("What to do", "("+string(d.Remedy.By)+") "+d.Remedy.Text)
		}
	}
}

// describeStep says in a line what became of a step.
func describeStep(s berth.StepStatus) string {
	text := s.Name + "  " + string(s.State)
	if s.ExitCode != nil && *s.ExitCode != 0 {
		text += fmt.Sprintf(", exit code %d", *s.ExitCode)
	}
	if s.Ignored {
		text += ", ignored"
	}
	if s.StartedAt != nil && s.FinishedAt != nil {
		text += ", " + s.FinishedAt.Sub(*s.StartedAt).Round(time.Millisecond).String()
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}

// exactly and atLeast say in words what is missing.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s takes %s, and got %d arguments; see %s --help", cmd.CommandPath(), what, len(args), cmd.CommandPath())
		}
		return nil
	}
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return fmt.Errorf("%s takes %s; see %s --help", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}
