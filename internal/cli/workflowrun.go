package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) workflowRunCommand() *cobra.Command {
	var f workflowFlags
	var detach bool
	cmd := &cobra.Command{
		Use: "run [flags] FILE [NAME=VALUE | NAME:=JSON ...]", Short: "Run a workflow, and print its result", Args: atLeast(1, "the file of a workflow"),
		Long: `Run a workflow: check it, fix the packages that it uses, and call its main with
the arguments. NAME=VALUE is JSON where VALUE is that, and a text otherwise;
NAME:=JSON is JSON. The value of main goes to stdout, what the program prints to
stderr.

A run is kept: if Berth ends it goes on with the next command or server, and no
call that has ended is made again. The first Ctrl-C cancels the run and waits for
its end, the second leaves.`,
		Example: "  berth workflow run wordcount.star words='to be or not' parts=4\n  berth workflow run --on site-a --detach sweep.star",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.submission(cmd, args)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				run, err := service.StartRun(ctx, s)
				if err != nil {
					return a.refused(err)
				}
				return a.attendRun(ctx, service, run, detach)
			})
		},
	}
	a.workflowFlags(cmd, &f)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "print the run's id and return")
	a.outputFlag(cmd)
	return cmd
}

// workflowFlags are those of a run.
type workflowFlags struct {
	on, onError string
	limits      berth.RunLimits
}

func (a *app) workflowFlags(cmd *cobra.Command, f *workflowFlags) {
	flags := cmd.Flags()
	flags.StringVar(&f.on, "on", "", "where calls run that name no place: an infrastructure, or labels KEY=VALUE (default: as of berth run)")
	flags.StringVar(&f.onError, "on-error", "finish", "what becomes of other calls when the program fails: finish or cancel")
	flags.Int64Var(&f.limits.Steps, "max-steps", 0, "steps that the program itself may take, its tasks apart (default 1000000000)")
	flags.DurationVar(&f.limits.Timeout, "timeout", 0, "how long the run may take, waiting included (default 168h)")
	_ = cmd.RegisterFlagCompletionFunc("on", a.completeInfrastructures)
	_ = cmd.RegisterFlagCompletionFunc("on-error", cobra.FixedCompletions([]string{"finish", "cancel"}, cobra.ShellCompDirectiveNoFileComp))
}

// submission is a run of the file and with the arguments that were typed.
func (f *workflowFlags) submission(cmd *cobra.Command, args []string) (berth.RunSubmission, error) {
	s := berth.RunSubmission{On: f.on, OnError: berth.OnError(f.onError), Limits: f.limits}
	if cmd.Flags().Changed("on") && f.on == "" {
		return s, fmt.Errorf("--on is empty; leave it away, or name an infrastructure")
	}
	var err error
	if s.Arguments, err = readRunArguments(args[1:]); err != nil {
		return s, err
	}
	source, err := workflowSource(args[0])
	if err == nil {
		s.Source = *source
	}
	return s, err
}

func (a *app) workflowResumeCommand() *cobra.Command {
	var with string
	var detach bool
	cmd := &cobra.Command{
		Use: "resume RUN", Short: "Go on with a run that failed or was cancelled", Args: exactly(1, "the id of a run"),
		Long: `Go on with a run that failed or was cancelled. Calls that ended well are not made
again, and neither are those whose failure the program took as a value.

With --with FILE the program is an edited one: what it does as the run did is
taken from the run, and a call that has other arguments now is made anew, with
what needs it; where that began is told.`,
		Example: "  berth workflow resume r-cq2b8s9dpvm0 --with wordcount.star",
		RunE: func(cmd *cobra.Command, args []string) error {
			resumption := berth.RunResumption{ID: args[0]}
			if cmd.Flags().Changed("with") {
				var err error
				if resumption.Source, err = workflowSource(with); err != nil {
					return err
				}
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				run, err := service.ResumeRun(ctx, resumption)
				if err != nil {
					return a.refused(err)
				}
				return a.attendRun(ctx, service, run, detach)
			})
		},
	}
	cmd.Flags().StringVar(&with, "with", "", "an edited program")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "print the run's id and return")
	a.outputFlag(cmd)
	return cmd
}

// workflowSource reads a workflow, to be sent.
func workflowSource(file string) (*berth.WorkflowSource, error) {
	program, err := loadWorkflow(file)
	if err != nil {
		return nil, err
	}
	source := &berth.WorkflowSource{Main: program.Main, Files: map[string][]byte{}}
	for name, text := range program.Files {
		source.Files[name] = []byte(text)
	}
	return source, nil
}

// readRunArguments reads arguments as they are typed.
func readRunArguments(words []string) (map[string]json.RawMessage, error) {
	arguments := map[string]json.RawMessage{}
	for _, word := range words {
		name, text, found := strings.Cut(word, "=")
		name, strict := strings.CutSuffix(name, ":")
		if !found || name == "" {
			return nil, fmt.Errorf("argument %q: write NAME=VALUE, or NAME:=JSON", word)
		}
		if _, twice := arguments[name]; twice {
			return nil, fmt.Errorf("argument %s is given twice", name)
		}
		value := json.RawMessage(text)
		if !json.Valid(value) {
			if strict {
				return nil, fmt.Errorf("argument %s:=%s is not JSON; with = alone it is a text", name, text)
			}
			var err error
			if value, err = json.Marshal(text); err != nil {
				return nil, err
			}
		}
		arguments[name] = value
	}
	return arguments, nil
}

// attendRun shows a run until it has ended, unless nobody waits for it.
func (a *app) attendRun(ctx context.Context, service berth.Service, run berth.Run, detach bool) error {
	if detach {
		if a.output != "table" {
			return a.print(run, nil)
		}
		fmt.Fprintln(a.stdout, run.ID)
		fmt.Fprintf(a.stderr, "berth: the run goes on while some berth command or server runs; berth workflow get %s\n", run.ID)
		return nil
	}
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	ctx, leave := context.WithCancel(ctx)
	defer leave()

	view := a.newRunView(run)
	defer view.close()
	type told struct {
		run *berth.Run
		err error
	}
	calls, runs := make(chan error, 1), make(chan told)
	go func() {
		for call, err := range service.RunCalls(ctx, run.ID, true) {
			if err != nil {
				calls <- err
				return
			}
			view.call(call)
		}
		calls <- nil
	}()
	go func() {
		defer close(runs)
		for now, err := range service.WatchRun(ctx, run.ID) {
			select {
			case runs <- told{&now, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for waiting, cancelled := 2, false; waiting > 0; {
		select {
		case t, more := <-runs:
			if !more {
				waiting, runs = waiting-1, nil
				continue
			}
			if t.err != nil {
				return t.err
			}
			run = *t.run
			view.run(run)
		case err := <-calls:
			if err != nil {
				return err
			}
			waiting, calls = waiting-1, nil
		case <-interrupts:
			if cancelled {
				view.close()
				fmt.Fprintf(a.stderr, "berth: left; the run is being cancelled: berth workflow get %s\n", run.ID)
				return exitError(berth.ExitCancelled)
			}
			cancelled = true
			view.say("cancelling run " + run.ID + "; press Ctrl-C again to leave without waiting")
			go func() {
				if _, err := service.CancelRun(ctx, run.ID); err != nil && ctx.Err() == nil {
					view.say("cannot cancel: " + err.Error())
				}
			}()
		}
	}
	view.close()
	return a.runEnded(run)
}

// runEnded tells how a run ended.
func (a *app) runEnded(run berth.Run) error {
	fmt.Fprint(a.stderr, runEnding(&run, textWidth(a.stderr)))
	switch {
	case a.output != "table":
		if err := a.print(run, nil); err != nil {
			return err
		}
	case run.State == berth.RunSucceeded && len(run.Result) > 0 && string(run.Result) != "null":
		if _, err := a.stdout.Write(append(plain(run.Result), '\n')); err != nil {
			return err
		}
	}
	if code := run.ProcessExitCode(); code != 0 {
		return exitError(code)
	}
	return nil
}

// runEnding says how a run ended: of one that failed where in the program, why,
// and what to do.
func runEnding(run *berth.Run, width int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "berth: run %s %s", run.ID, run.State)
	if run.FinishedAt != nil {
		fmt.Fprintf(&out, " in %s", took(run.FinishedAt.Sub(run.CreatedAt)))
	}
	out.WriteString("\n")
	if run.Diverged != nil {
		out.WriteString(wrap("The program went another way than before from "+*run.Diverged+".", "  ", width) + "\n")
	}
	if e := run.Error; e != nil {
		runErrorText(&out, e, width)
		fmt.Fprintf(&out, "  Go on with it: berth workflow resume %s, or with an edited program: --with FILE\n", run.ID)
	}
	return out.String()
}

// runErrorText shows an error of a program with its stack, as Python does, and
// the diagnosis of the task that failed it below.
func runErrorText(w io.Writer, e *berth.RunError, width int) {
	if len(e.Stack) > 0 {
		fmt.Fprintln(w, "  Traceback (most recent call last):")
		for _, f := range e.Stack {
			fmt.Fprintf(w, "    %s:%d:%d: in %s\n", clean(f.File), f.Line, f.Column, clean(f.Function))
		}
	}
	message := e.Message
	if e.Call != nil && e.Call.Diagnosis != nil { // which says it below
		message = strings.TrimSuffix(message, ": "+e.Call.Diagnosis.Summary)
	}
	fmt.Fprintln(w, wrap("Error: "+strings.TrimSpace(message), "  ", width))
	if c := e.Call; c != nil {
		if d := c.Diagnosis; d != nil {
			fmt.Fprintf(w, "  %s: %s", d.Cause, strings.TrimPrefix(advice(d, width), "  "))
		}
		if c.Task != "" {
			fmt.Fprintf(w, "  More: berth task explain %s; its output: berth task logs %s\n", c.Task, c.Task)
		}
	}
}
