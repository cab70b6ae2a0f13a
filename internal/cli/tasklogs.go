package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// logsFlags are the flags of berth task logs.
type logsFlags struct {
	query               berth.LogQuery
	since, step, stream string
	labels              []string
}

func (a *app) taskLogsCommand() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use: "logs ID... | -l K=V", Short: "Show the output of tasks, also long after their pods are gone",
		Long: `Show what a task printed, also long after its pod is gone. What it wrote to stderr
goes to stderr where that is known: where Berth's agent runs (steps, functions),
and on a Docker Engine.

Of several tasks, named or with a label, each line begins with the task's name or
id. Lines are put in the order of their times; with -f they come as they arrive,
and with -l tasks that get the label later are joined.`,
		Example: `  berth task logs -f ID
  berth task logs --since 10m --grep 'error|warning' ID
  berth task logs -l sweep=7 --tail 5`,
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := f.read(args)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				var err error
				switch {
				case len(args) == 1 && berth.IsArrayID(args[0]):
					err = a.showArrayLogs(ctx, service, args[0], f.query)
				case len(args) == 1:
					err = a.showLog(ctx, service, args[0], f.step, f.query)
				default:
					err = a.showLogs(ctx, service, args, labels, f.query)
				}
				if ctx.Err() != nil {
					return exitError(berth.ExitCancelled)
				}
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.query.Follow, "follow", "f", false, "go on until the task has ended")
	flags.IntVar(&f.query.Attempt, "attempt", 0, "of this attempt (default: the last)")
	flags.StringVar(&f.step, "step", "", "only of this step, by its name or number")
	flags.IntVar(&f.query.Tail, "tail", 0, "only the last lines, of those that are asked for otherwise")
	flags.StringVar(&f.since, "since", "", "only what is newer: 10m, or a time such as 2026-01-02T15:04:05Z")
	flags.StringVar(&f.query.Grep, "grep", "", "only lines that match a regular expression (RE2)")
	flags.StringVar(&f.stream, "stream", "", "only stdout, or only stderr")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "of all tasks with a label K=V")
	flags.BoolVarP(&f.query.Timestamps, "timestamps", "t", false, "begin each line with its time")
	_ = cmd.RegisterFlagCompletionFunc("stream", cobra.FixedCompletions([]string{"stdout", "stderr"}, cobra.ShellCompDirectiveNoFileComp))
	a.rawFlag(cmd)
	return cmd
}

// read checks what was given before anything is asked for.
func (f *logsFlags) read(args []string) (labels map[string]string, err error) {
	q := &f.query
	if labels, err = readLabels(f.labels); err != nil {
		return nil, err
	}
	if q.Since, err = parseSince(f.since); err != nil {
		return nil, err
	}
	if q.Grep != "" {
		if _, err := regexp.Compile(q.Grep); err != nil {
			return nil, fmt.Errorf("--grep %q is not a regular expression: %w", q.Grep, err)
		}
	}
	q.Stream = berth.LogStream(f.stream)
	switch {
	case len(args) == 0 && len(labels) == 0:
		return nil, fmt.Errorf("berth task logs takes the id of a task, several, or a label (-l K=V); berth task list shows them")
	case len(args) > 0 && len(labels) > 0:
		return nil, fmt.Errorf("ids and --label: choose one of them")
	case len(args) > maxLogs:
		return nil, fmt.Errorf("%d tasks: at most %d logs are shown at once", len(args), maxLogs)
	case q.Tail < 0 || q.Attempt < 0:
		return nil, fmt.Errorf("--tail and --attempt can't be negative")
	case f.step != "" && q.Tail > 0:
		return nil, fmt.Errorf("--tail with --step: choose one of them")
	case f.step != "" && len(args) != 1:
		return nil, fmt.Errorf("--step is for the log of one task")
	case q.Stream != "" && q.Stream != berth.LogStdout && q.Stream != berth.LogStderr:
		return nil, fmt.Errorf("--stream %s: choose stdout or stderr", f.stream)
	}
	return labels, nil
}

// readLabels reads K=V of each.
func readLabels(pairs []string) (map[string]string, error) {
	var labels map[string]string
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return nil, fmt.Errorf("--label %s: write KEY=VALUE", pair)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}

// showLog shows the log of one task, byte for byte.
func (a *app) showLog(ctx context.Context, service berth.Service, id, step string, q berth.LogQuery) error {
	if step != "" {
		var err error
		if q.Step, err = stepNumber(ctx, service, id, step); err != nil {
			return err
		}
	}
	some := false
	for chunk, err := range service.TaskLogs(ctx, id, q) {
		if err != nil {
			return err
		}
		some = true
		if chunk.Gap != "" {
			fmt.Fprintln(a.stderr, "berth: "+oneLine(chunk.Gap))
			continue
		}
		to := a.stdout
		if chunk.Stream == berth.LogStderr {
			to = a.stderr
		}
		if _, err := to.Write(chunk.Data); err != nil {
			return err
		}
	}
	if some || ctx.Err() != nil {
		return nil
	}
	task, err := service.Task(ctx, id)
	if err == nil {
		fmt.Fprintln(a.stderr, "berth: "+noOutput(&task, q))
	}
	return err
}

// noOutput says why nothing was shown.
func noOutput(task *berth.Task, q berth.LogQuery) string {
	what := "has printed nothing"
	switch {
	case q.Stream == berth.LogStderr && !task.Spec.Agent():
		what += " that is known to be of stderr: where no agent runs (steps, functions) a cluster does not tell stdout and stderr apart"
	case q.Stream != "" || q.Grep != "" || q.Step > 0 || !q.Since.IsZero():
		what = "has no output that was asked for"
	}
	if !task.State.Terminal() {
		what += " so far"
	}
	return "task " + task.ID + " " + what
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
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, fmt.Errorf("--since %s: write a duration such as 10m, or a time such as 2026-01-02T15:04:05Z", text)
	}
	return at, nil
}
