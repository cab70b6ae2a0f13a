package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// attendance is how a task is shown while it runs.
type attendance struct {
	output io.Writer                      // where the task's output goes
	result func(*live, berth.Task) error  // called at its end, unless nil
	rest   func(berth.Task) time.Duration // how long the rest of the output is waited for; nil: until it is there
}

// attend shows a task and its output until it has ended.
func (a *app) attend(ctx context.Context, service berth.Service, task berth.Task, interrupts <-chan os.Signal, how attendance) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	view := a.newLive()
	closed := false
	closeView := func() {
		if !closed {
			closed = true
			view.close()
		}
	}
	defer closeView()
	view.show(task)

	id, logs := task.ID, make(chan error, 1)
	go func() { logs <- a.copyLogs(ctx, service, id, view, how.output) }()
	ended := make(chan error, 1)
	go func() {
		for t, err := range service.WatchTask(ctx, id) {
			if err != nil {
				ended <- err
				return
			}
			task = t
			view.show(t)
		}
		ended <- nil
	}()
	var enough <-chan time.Time
	for waiting, cancelled := 2, false; waiting > 0; {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
			waiting, ended = waiting-1, nil
			if how.result != nil {
				if err := how.result(view, task); err != nil {
					return err
				}
			}
			if how.rest != nil && waiting > 0 {
				enough = time.After(how.rest(task))
			}
		case <-enough:
			waiting = 0
		case err := <-logs:
			if err != nil {
				view.say("cannot show the output: %s", err)
			}
			waiting, logs = waiting-1, nil
		case <-interrupts:
			if cancelled {
				closeView()
				fmt.Fprintf(a.stderr, "berth: left; the task is being cancelled: berth task wait %s\n", task.ID)
				return exitError(berth.ExitCancelled)
			}
			cancelled = true
			view.say("cancelling task %s; press Ctrl-C again to leave without waiting", task.ID)
			go func() {
				if _, err := service.CancelTask(ctx, task.ID); err != nil && ctx.Err() == nil {
					view.say("cannot cancel: %s", err)
				}
			}()
		}
	}
	closeView()
	if task.State != berth.StateSucceeded {
		fmt.Fprint(a.stderr, ending(task, textWidth(a.stderr)))
	}
	if code := task.ProcessExitCode(); code != 0 {
		return exitError(code)
	}
	return nil
}

// copyLogs writes the output of all attempts, one after the other.
func (a *app) copyLogs(ctx context.Context, service berth.Service, id string, view *live, to io.Writer) error {
	for attempt := 1; ; attempt++ {
		for chunk, err := range service.TaskLogs(ctx, id, berth.LogQuery{Attempt: attempt, Follow: true}) {
			switch {
			case berth.CodeOf(err) == berth.CodeNotFound || ctx.Err() != nil:
				return nil // no further attempt
			case err != nil:
				return err
			case chunk.Gap != "":
				view.say("%s", chunk.Gap)
			default:
				out := to
				if chunk.Stream == berth.LogStderr {
					out = a.stderr
				}
				if err := view.write(out, chunk.Data); err != nil {
					return err
				}
			}
		}
	}
}

// ending says on stderr why a task did not succeed.
func ending(task berth.Task, width int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "berth: task %s %s", task.ID, task.State)
	if d := task.Diagnosis; d != nil && task.State != berth.StateCancelled {
		fmt.Fprintf(&out, ": %s\n%s", d.Cause, advice(d, width))
		fmt.Fprintf(&out, "  More: berth task explain %s\n", task.ID)
		return out.String()
	}
	out.WriteString("\n")
	return out.String()
}

// advice is what a diagnosis says, and what to do about it.
func advice(d *berth.Diagnosis, width int) string {
	text := wrap(d.Summary, "  ", width) + "\n"
	if d.Remedy.Text != "" {
		text += wrap("What to do ("+string(d.Remedy.By)+"): "+d.Remedy.Text, "  ", width) + "\n"
	}
	return text
}
