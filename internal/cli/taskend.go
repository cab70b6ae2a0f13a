package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) taskWaitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait ID...", Short: "Wait for tasks and arrays to end; exits with their exit code",
		Long: "Wait for tasks to end. The exit code is the task's own, as of berth run; of several tasks that of the first, in the order given, that did not succeed; of an array that of its failed one with the lowest index. Ctrl-C stops waiting, not the task.",
		Args: atLeast(1, "the id of a task or an array"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
				defer stop()
				return a.wait(ctx, service, args)
			})
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) wait(ctx context.Context, service berth.Service, ids []string) error {
	var ended []any
	code := 0
	for _, id := range ids {
		if berth.IsArrayID(id) {
			array, err := a.watchArray(ctx, service, id)
			if ctx.Err() != nil {
				return exitError(berth.ExitCancelled)
			}
			if err != nil {
				return err
			}
			its, err := a.arrayEnded(ctx, service, array)
			if err != nil {
				return err
			}
			ended, code = append(ended, array), cmp.Or(code, its)
			continue
		}
		view := a.newLive()
		var task berth.Task
		var failed error
		for t, err := range service.WatchTask(ctx, id) {
			if err != nil {
				failed = err
				break
			}
			task = t
			view.show(t)
		}
		view.close()
		if ctx.Err() != nil {
			return exitError(berth.ExitCancelled)
		}
		if failed != nil {
			return failed
		}
		ended = append(ended, task)
		if task.State != berth.StateSucceeded {
			fmt.Fprint(a.stderr, ending(task, textWidth(a.stderr)))
		}
		if code == 0 {
			code = task.ProcessExitCode()
		}
	}
	if a.output != "table" {
		var value any = ended
		if len(ended) == 1 {
			value = ended[0]
		}
		if err := a.print(value, nil); err != nil {
			return err
		}
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

func (a *app) taskCancelCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "cancel ID...", Short: "Cancel tasks and arrays", Args: atLeast(1, "the id of a task or an array"),
		Long: "Cancel tasks. The wish is stored first and holds from then on; the program gets SIGTERM, and SIGKILL 10 s later. A task that has ended stays as it is.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				for _, id := range args {
					if berth.IsArrayID(id) {
						if err := a.cancelArray(ctx, service, id, wait); err != nil {
							return err
						}
						continue
					}
					task, err := service.CancelTask(ctx, id)
					if err != nil {
						return err
					}
					if wait {
						for t, err := range service.WatchTask(ctx, id) {
							if err != nil {
								return err
							}
							task = t
						}
					}
					switch {
					case task.State == berth.StateCancelled:
						fmt.Fprintf(a.stderr, "berth: task %s is cancelled\n", id)
					case task.State.Terminal():
						fmt.Fprintf(a.stderr, "berth: task %s had ended: %s\n", id, task.State)
					default:
						fmt.Fprintf(a.stderr, "berth: task %s is being cancelled\n", id)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until they have ended")
	return cmd
}

func (a *app) cancelArray(ctx context.Context, service berth.Service, id string, wait bool) error {
	array, err := service.CancelArray(ctx, id)
	if err != nil {
		return err
	}
	if wait {
		for now, err := range service.WatchArray(ctx, id) {
			if err != nil {
				return err
			}
			array = now
		}
	}
	switch left := array.Size - array.Ended(); {
	case array.CancelledAt == nil:
		fmt.Fprintf(a.stderr, "berth: all tasks of array %s had ended\n", id)
	case left > 0:
		fmt.Fprintf(a.stderr, "berth: %d tasks of array %s are being cancelled\n", left, id)
	default:
		fmt.Fprintf(a.stderr, "berth: array %s: %d of %d tasks are cancelled; the others had ended\n", id, array.States[berth.StateCancelled], array.Size)
	}
	return nil
}

func (a *app) taskRetryCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Run a task again, or those of an array that did not succeed", Args: exactly(1, "the id of a task or an array"),
		Long: `Run an ended task again, as a new task with an id of its own. Of an array those
tasks are run again that failed, were lost or were cancelled, as a new array with
their indices and items. What ended stays as it is.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				if berth.IsArrayID(args[0]) {
					array, err := service.RetryArray(ctx, args[0], "")
					if err != nil {
						return a.refused(err)
					}
					return a.attendArray(ctx, service, array, detach)
				}
				task, err := service.Task(ctx, args[0])
				if err != nil {
					return err
				}
				if !task.State.Terminal() {
					return fmt.Errorf("task %s has not ended, it is %s: wait for it, or cancel it, and retry it then", task.ID, task.State)
				}
				how := attendance{output: a.stdout}
				if task.Spec.Call != nil {
					how = attendance{output: a.stderr, result: a.printResult, rest: restOfCall}
				}
				return a.run(ctx, service, berth.Submission{Spec: task.Spec}, detach, how)
			})
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "print the new id and return")
	a.outputFlag(cmd)
	a.rawFlag(cmd)
	return cmd
}

func (a *app) listArrays(cmd *cobra.Command, q berth.ArrayQuery) error {
	return a.with(cmd, func(ctx context.Context, service berth.Service) error {
		page, err := service.Arrays(ctx, q)
		if err != nil {
			return err
		}
		if err := a.print(page.Arrays, func(w io.Writer) { arrayTable(w, page.Arrays) }); err != nil {
			return err
		}
		if page.Next != "" {
			fmt.Fprintf(a.stderr, "berth: there are more: --after %s\n", page.Next)
		}
		return nil
	})
}
