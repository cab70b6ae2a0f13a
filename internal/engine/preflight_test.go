package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// refusing answers every preflight with a refusal.
func refusing(r *Refusal) func(context.Context, Order) error {
	return func(context.Context, Order) error { return r }
}

func tooLarge() *Refusal {
	return &Refusal{Kind: RefusedPermanent, Hopeless: true, Err: errors.New("no"), Diagnosis: &berth.Diagnosis{
		Cause: berth.CauseLimitRangeViolated, Summary: "500m is allowed, and 2 is asked for.", Remedy: berth.Remedy{Text: "use --cpu 500m", By: berth.RemedyByUser},
		Evidence: []berth.Evidence{{Source: "API server", Text: "maximum cpu usage per Container is 500m"}},
	}}
}

func TestPreflightRefusesAndStoresNothing(t *testing.T) {
	c := newCluster()
	c.onPreflight = refusing(tooLarge())
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	_, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here", CPU: "2"}})
	var told *berth.Error
	if !errors.As(err, &told) || told.Code != berth.CodeInvalid || told.Diagnosis == nil || told.Diagnosis.Cause != berth.CauseLimitRangeViolated {
		t.Fatalf("error %+v", err)
	}
	for _, word := range []string{"here", "LimitRangeViolated", "500m is allowed", "use --cpu 500m", "you"} {
		if !strings.Contains(told.Message, word) {
			t.Errorf("the message lacks %q: %s", word, told.Message)
		}
	}
	if lives, err := p.store.Live(t.Context(), "here"); err != nil || len(lives) != 0 {
		t.Errorf("stored: %v, %v", lives, err)
	}
	if created, _, _ := c.counts(); created != 0 {
		t.Errorf("%d pods were made", created)
	}
	if o := c.asked[0]; o.Spec.CPU != "2" || o.Attempt != 1 || o.Pod != berth.PodName(o.TaskID, 1, 0) || o.Instance == "" {
		t.Errorf("asked about %+v", o)
	}
}

func TestWhatPreflightDoesNotRefuse(t *testing.T) {
	unexplained := tooLarge()
	unexplained.Diagnosis = nil
	for name, answer := range map[string]func(context.Context, Order) error{
		"a quota in use by others":         refusing(&Refusal{Kind: RefusedQuota, Diagnosis: &berth.Diagnosis{Cause: berth.CauseQuotaExceeded}}),
		"a webhook that can't be called":   refusing(&Refusal{Kind: RefusedTransient, Diagnosis: &berth.Diagnosis{Cause: berth.CauseAdmissionDenied}}),
		"a cluster that does not answer":   refusing(&Refusal{Kind: RefusedUnreachable, Diagnosis: &berth.Diagnosis{Cause: berth.CauseClusterUnreachable}}),
		"credentials that don't hold now":  refusing(&Refusal{Kind: RefusedUnauthorized, Diagnosis: &berth.Diagnosis{Cause: berth.CauseUnauthorized}}),
		"a refusal that nobody can tell":   refusing(unexplained),
		"an error of another kind":         func(context.Context, Order) error { return errors.New("odd") },
		"what takes longer than it may":    func(ctx context.Context, _ Order) error { <-ctx.Done(); return tooLarge() },
		"what is accepted, which is usual": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster()
			c.onPreflight, c.autoEnd = answer, true
			p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
			task := p.submit(nil)
			p.until(task.ID, func(t berth.Task) bool { return t.State == berth.StateSucceeded })
		})
	}
}

func TestNoPreflight(t *testing.T) {
	t.Run("where it was not wanted", func(t *testing.T) {
		c := newCluster()
		c.onPreflight = refusing(tooLarge())
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		if _, err := p.engine.Submit(t.Context(), "ann", "ann", berth.Submission{NoPreflight: true, Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}}); err != nil || len(c.asked) != 0 {
			t.Errorf("asked %d times, %v", len(c.asked), err)
		}
	})
	t.Run("of a task that was submitted before", func(t *testing.T) {
		c := newCluster()
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		submission := berth.Submission{Key: "k", Spec: berth.TaskSpec{Image: "busybox", Infrastructure: "here"}}
		first, err := p.engine.Submit(t.Context(), "ann", "ann", submission)
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.onPreflight = refusing(tooLarge())
		c.mu.Unlock()
		again, err := p.engine.Submit(t.Context(), "ann", "ann", submission)
		if err != nil || again.ID != first.ID || len(c.asked) != 1 {
			t.Errorf("%s and %s, asked %d times, %v", first.ID, again.ID, len(c.asked), err)
		}
	})
	t.Run("while the cluster is out of reach", func(t *testing.T) {
		c := newCluster()
		dir := t.TempDir()
		p := start(t, dir, c, berth.InfrastructureConfig{})
		p.until(p.submit(nil).ID, func(t berth.Task) bool { return t.State == berth.StateLaunching })
		c.mu.Lock()
		c.onPreflight = refusing(tooLarge())
		c.mu.Unlock()
		c.sink.Lost(&Refusal{Kind: RefusedUnreachable, Diagnosis: &berth.Diagnosis{Cause: berth.CauseClusterUnreachable, Summary: "it does not answer"}})
		p.outOfReach()
		if task := p.submit(nil); task.State != berth.StateQueued || len(c.asked) != 1 {
			t.Errorf("the task is %s, asked %d times", task.State, len(c.asked))
		}
	})
}

// outOfReach waits until the infrastructure is known not to answer.
func (p *process) outOfReach() {
	p.t.Helper()
	for {
		if h, _, _ := p.engine.Health("here"); h.State == berth.InfraUnreachable {
			return
		}
		select {
		case <-p.t.Context().Done():
			p.t.Fatal("it never was out of reach")
		case <-time.After(5 * time.Millisecond):
		}
	}
}
