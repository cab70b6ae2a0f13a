package engine

import (
	"context"
	"errors"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// Agents says what the agent of an attempt is given, and who it is.
type Agents interface {
	// Prepare returns what a driver needs to start the agent. Errors are a
	// *Refusal.
	Prepare(ctx context.Context, infrastructure berth.InfrastructureConfig, order Order) (*Agent, error)

	// Proxy returns what a driver needs for an infrastructure with a proxy.
	// Errors are a *Refusal.
	Proxy(ctx context.Context, infrastructure berth.InfrastructureConfig) (*Proxy, error)

	// Nonce marks the agent's frames in the log of a pod.
	Nonce(pod string) string

	// Completed says why what an agent ran failed; nil when it succeeded.
	Completed(infrastructure string, task *berth.Task, c *agent.Completion) *berth.Diagnosis
}

// ErrOver says that an attempt has ended, or never was: whoever reports for it
// may stop.
var ErrOver = errors.New("the attempt is over")

// Told takes in an authenticated report of an attempt's agent, and returns once
// it is committed. ErrOver when the attempt has ended; CodeUnavailable when the
// agent should try again.
func (e *Engine) Told(ctx context.Context, report agent.Report) error {
	life, err := e.life(ctx, report.Task)
	if err != nil {
		if berth.CodeOf(err) == berth.CodeNotFound {
			return ErrOver
		}
		return err
	}
	l := e.loop(life.Task.Infrastructure)
	if l == nil {
		return berth.Errorf(berth.CodeUnavailable, "infrastructure %s is not in use", life.Task.Infrastructure)
	}
	switch a := life.ByNumber(report.Attempt); {
	case a == nil || a.Pod != report.Pod || a.Outcome != nil || life.Settled():
		return ErrOver
	case onlyHeartbeats(report.Events):
		l.meters.told(report.Pod, report.Events)
		return nil // nothing of it changes the life
	}
	var answer error
	if err := e.ask(ctx, l, report.Task, func(s *step, r reply) {
		s.replies = append(s.replies, r)
		answer = s.onTold(report)
	}); err != nil {
		return err
	}
	return answer
}

func onlyHeartbeats(events []agent.Event) bool {
	for i := range events {
		if events[i].Type != berth.EventHeartbeat {
			return false
		}
	}
	return true
}

func (s *step) onTold(report agent.Report) error {
	life := s.life(report.Task)
	if life == nil {
		return ErrOver
	}
	a := life.ByNumber(report.Attempt)
	if a == nil || a.Pod != report.Pod || a.Outcome != nil {
		return ErrOver
	}
	if a.UID == "" {
		return berth.Errorf(berth.CodeUnavailable, "the pod was not seen yet")
	}
	s.seen()
	s.apply(report.Task, func(l *berth.Life) []berth.Event {
		var events []berth.Event
		for i := range report.Events {
			if e, ok := s.agentEvent(&l.Task, &report.Events[i]); ok {
				events = append(events, l.Told(report.Attempt, report.Pod, e, s.now)...)
			}
		}
		return events
	})
	s.consequences(report.Task)
	return nil
}

// agentEvent puts what an agent told into the domain's terms. An end whose
// cause only the cluster knows is waited for.
func (s *step) agentEvent(task *berth.Task, e *agent.Event) (berth.AgentEvent, bool) {
	out := berth.AgentEvent{Seq: e.Seq, Type: e.Type, At: e.At, Message: e.Message, Step: e.Step, Status: e.Status}
	if e.Type != berth.EventCompleted {
		return out, e.Type != berth.EventHeartbeat
	}
	if e.Completion == nil || e.Completion.Deferred {
		return out, false
	}
	out.Outcome = e.Completion.Outcome(s.engine.agents.Completed(s.name, task, e.Completion))
	return out, true
}
