package let

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// reporter tells what happens: to the control plane by callback, and at the
// end by the container itself.
type reporter struct {
	order    *agent.Order
	callback *callback // nil where there is none
	log      *containerLog
}

func newReporter(order *agent.Order) *reporter {
	return &reporter{order: order, callback: newCallback(order), log: newLog(order)}
}

func (r *reporter) tell(e agent.Event) {
	e.At = time.Now().UTC()
	if r.callback != nil {
		r.callback.send(e)
	}
}

func (r *reporter) tellStep(t berth.EventType, i int, status berth.StepStatus) {
	message := fmt.Sprintf("step %s (%d of %d)", status.Name, i+1, len(r.order.Steps))
	if t == berth.EventStepFinished {
		message += ": " + string(status.State)
		if status.ExitCode != nil && *status.ExitCode != 0 {
			message += fmt.Sprintf(", exit code %d", *status.ExitCode)
		}
	}
	r.tell(agent.Event{Type: t, Step: i + 1, Status: &status, Message: message})
}

// mark writes into the log whose output comes next.
func (r *reporter) mark(step int) {
	r.log.frame(agent.StepFrame(r.order.Nonce, step))
}

// complete reports the end: with the container first, which always works, then
// by callback, which is faster where it does.
func (r *reporter) complete(c *agent.Completion) {
	message, block, err := agent.EncodeMessage(c, r.order.Message.Limit)
	if err != nil {
		fmt.Fprintln(os.Stderr, "berthlet: cannot report: "+err.Error())
		return
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		// What a step left running may write too: a pipe takes a frame whole, but
		// not all of them at once.
		for frame := range bytes.Lines(agent.Frames(r.order.Nonce, block)) {
			r.log.frame(frame)
		}
		// Not created anew: a runtime mounts this very file.
		file, err := os.OpenFile(r.order.Message.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err == nil {
			_, err = file.Write(message)
			file.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "berthlet: cannot leave the report with the container: "+err.Error())
		}
	}()
	if r.callback != nil {
		r.callback.finish(agent.Event{Type: berth.EventCompleted, At: c.EndedAt, Completion: c, Message: fmt.Sprintf("exit code %d", c.ExitCode)})
	}
	<-written
}

func (r *reporter) close() {
	if r.callback != nil {
		r.callback.close()
	}
}
