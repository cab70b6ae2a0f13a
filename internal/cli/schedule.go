package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) scheduleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "Start tasks, calls and workflows again and again", Aliases: []string{"schedules"},
		Long: "A schedule starts a task, a call or a workflow at the times of a cron expression. It is kept by Berth, and started while a server (or some berth command) runs.",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.scheduleCreateCommand(), a.scheduleListCommand(), a.schedulePauseCommand(true), a.schedulePauseCommand(false), a.scheduleDeleteCommand())
	return cmd
}

func (a *app) scheduleCreateCommand() *cobra.Command {
	var s berth.Schedule
	var overlap, catchUp string
	cmd := &cobra.Command{
		Use: "create NAME --cron EXPRESSION [flags] -- run|call|workflow run ...", Short: "Make a schedule",
		Long: `Make a schedule. What stands behind -- is what is to be started, as it would be
typed behind berth: run, call or workflow run, with their flags. A workflow's
files are kept with the schedule; later changes of them are not looked at.

The cron expression has five fields: minute, hour, day of the month, month and day
of the week. They are what clocks of --timezone show. Where clocks are set ahead,
what is due in the hour that there isn't is started at once; where they are set
back it is started the first time only. What is due in each hour is not touched.`,
		Example: `  berth schedule create nightly --cron "0 6 * * *" --timezone Europe/Amsterdam -- run registry.example/tool:1.2 -- --all
  berth schedule create counts --cron "*/30 * * * 1-5" --overlap queue -- workflow run wordcount.star words='to be'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || cmd.ArgsLenAtDash() != 1 {
				return fmt.Errorf("berth schedule create takes a name, and behind -- what is to be started, such as berth schedule create nightly --cron \"0 6 * * *\" -- run IMAGE; see berth schedule create --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.Cron == "" {
				return fmt.Errorf("--cron is missing: say when, such as --cron \"0 6 * * *\" for each day at six")
			}
			s.Name, s.Command, s.Overlap, s.CatchUp = args[0], args[1:], berth.Overlap(overlap), berth.CatchUp(catchUp)
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				if err := a.readCommand(ctx, service, &s); err != nil {
					return err
				}
				made, err := service.CreateSchedule(ctx, s)
				if err != nil {
					return a.refused(err)
				}
				if a.output != "table" {
					return a.print(made, nil)
				}
				fmt.Fprintf(a.stderr, "berth: schedule %s is made; it is due next at %s; it is started while a berth server runs\n", made.Name, whenOf(made.NextAt, made.Timezone))
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.Cron, "cron", "", "when: minute, hour, day of the month, month, day of the week")
	flags.StringVar(&s.Timezone, "timezone", "", "whose clocks are meant, such as Europe/Amsterdam (default UTC)")
	flags.StringVar(&overlap, "overlap", "skip", "when it is due and the last one goes on: skip this one, queue it, or replace the last one")
	flags.StringVar(&catchUp, "catch-up", "none", "what was due while no server ran: none, or last: the last of these times is made up for")
	_ = cmd.RegisterFlagCompletionFunc("overlap", cobra.FixedCompletions([]string{"skip", "queue", "replace"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("catch-up", cobra.FixedCompletions([]string{"none", "last"}, cobra.ShellCompDirectiveNoFileComp))
	a.outputFlag(cmd)
	return cmd
}

// readCommand reads what a schedule is to start, as it would be typed.
func (a *app) readCommand(ctx context.Context, service berth.Service, s *berth.Schedule) error {
	words := s.Command
	verb := words[0]
	if verb == "workflow" && len(words) > 1 && words[1] == "run" {
		verb, words = "workflow run", words[1:]
	}
	var f runFlags
	var w workflowFlags
	cmd := &cobra.Command{Use: verb, SilenceErrors: true, SilenceUsage: true}
	switch verb {
	case "run":
		a.runFlags(cmd, &f)
	case "call":
		a.resourceFlags(cmd, &f)
	case "workflow run":
		a.workflowFlags(cmd, &w)
	default:
		return fmt.Errorf("a schedule starts run, call or workflow run, not %s", strings.Join(words, " "))
	}
	if err := cmd.ParseFlags(words[1:]); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	args := cmd.Flags().Args()
	switch verb {
	case "run":
		spec, err := f.spec(cmd, args)
		s.Task = &spec
		return err
	case "call":
		if len(args) < 2 {
			return fmt.Errorf("call takes a package and a function, such as call arithmetic add a=3 b=4")
		}
		var spec berth.TaskSpec
		err := f.resources(cmd, &spec)
		if err == nil {
			spec.Call, err = readCall(ctx, service, spec.Infrastructure, args)
		}
		s.Task = &spec
		return err
	}
	if len(args) == 0 {
		return fmt.Errorf("workflow run takes the file of a workflow")
	}
	run, err := w.submission(cmd, args)
	s.Run = &run
	return err
}

// whenOf is a time as clocks of a zone show it.
func whenOf(at *time.Time, zone string) string {
	if at == nil {
		return ""
	}
	if location, err := time.LoadLocation(zone); err == nil {
		return at.In(location).Format("2006-01-02 15:04 MST")
	}
	return at.UTC().Format(time.RFC3339)
}

func (a *app) scheduleListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List schedules, by name", Aliases: []string{"ls"}, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				list, err := service.Schedules(ctx)
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { scheduleTable(w, list) })
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func scheduleTable(w io.Writer, list []berth.Schedule) {
	row(w, "NAME", "CRON", "TIMEZONE", "NEXT", "LAST", "STARTED", "OVERLAP", "COMMAND", "WHY")
	for _, s := range list {
		next, last, why := whenOf(s.NextAt, s.Timezone), "", ""
		if s.Paused {
			next = "paused"
		}
		if s.Last != nil {
			last = *s.Last
		}
		if s.Note != nil {
			why = *s.Note
		}
		command := []rune(oneLine(strings.Join(s.Command, " ")))
		if len(command) > 40 {
			command = append(command[:39], '…')
		}
		row(w, s.Name, s.Cron, s.Timezone, next, last, whenOf(s.LastAt, s.Timezone), string(s.Overlap), string(command), oneLine(why))
	}
}

// completeSchedules completes names of schedules.
func (a *app) completeSchedules(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	_ = a.with(cmd, func(ctx context.Context, service berth.Service) error {
		list, err := service.Schedules(ctx)
		for _, s := range list {
			names = append(names, s.Name+"\t"+oneLine(s.Cron))
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) schedulePauseCommand(paused bool) *cobra.Command {
	use, short, said := "pause NAME...", "Have schedules start nothing until they are resumed", "is paused"
	if !paused {
		use, short, said = "resume NAME...", "Have paused schedules go on with the next time at which they are due", "goes on"
	}
	return &cobra.Command{
		Use: use, Short: short, Args: atLeast(1, "the name of a schedule"), ValidArgsFunction: a.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				for _, name := range args {
					s, err := service.PauseSchedule(ctx, name, paused)
					if err != nil {
						return err
					}
					text := fmt.Sprintf("berth: schedule %s %s", s.Name, said)
					if s.NextAt != nil {
						text += "; it is due next at " + whenOf(s.NextAt, s.Timezone)
					}
					fmt.Fprintln(a.stderr, text)
				}
				return nil
			})
		},
	}
}

func (a *app) scheduleDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME...", Short: "Delete schedules; what they started goes on", Aliases: []string{"rm"}, Args: atLeast(1, "the name of a schedule"), ValidArgsFunction: a.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				for _, name := range args {
					if err := service.DeleteSchedule(ctx, name); err != nil {
						return err
					}
					fmt.Fprintf(a.stderr, "berth: schedule %s is deleted\n", name)
				}
				return nil
			})
		},
	}
}
