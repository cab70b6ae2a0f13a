package compute

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func TestTheHeadIsMadeFirst(t *testing.T) {
	s := newSite(fixed(2))
	s.pass()
	s.did(t, "make head")
	s.stands(t, 2, 0, 0, 0)
	s.pass()
	s.did(t)
	s.is(t, berth.ClusterStarting, "its head is queued")
	waits := "waits for a node"
	s.head.Reason = &waits
	s.pass()
	s.is(t, berth.ClusterStarting, "its head is queued: it waits for a node")
}

func TestWorkersAreMadeOnceTheHeadHasAnAddress(t *testing.T) {
	s := newSite(fixed(2))
	s.pass()
	s.headRuns()
	s.address = ""
	s.pass()
	s.did(t, "make head")
	s.address = "10.0.0.1"
	s.pass()
	s.did(t, "make workers-001", "make workers-002") // it need not answer
	s.is(t, berth.ClusterStarting, "its head runs, and does not answer yet")
	s.stands(t, 2, 0, 2, 0)
	s.answers()
	s.pass()
	s.is(t, berth.ClusterRunning, "")
	s.joins("workers-001")
	s.pass()
	s.stands(t, 2, 1, 1, 0)
	s.did(t)
}

func TestManyWorkersAreMadeInTurns(t *testing.T) {
	s := newSite(berth.ClusterGroup{Name: "a", Count: 100}, berth.ClusterGroup{Name: "b", Count: 100})
	s.pass()
	s.headRuns()
	for _, want := range []int{64, 64, 64, 8, 0} {
		if acts := s.pass(); len(acts.make) != want || (acts.again == 0) != (want == 64) {
			t.Errorf("%d are made, and it goes on after %s, want %d", len(acts.make), acts.again, want)
		}
	}
}

func TestALostWorkerIsReplacedAndCountedByCause(t *testing.T) {
	s := running(fixed(4))
	s.ends("workers-001", berth.StateFailed, berth.CauseOOMKilled)
	s.ends("workers-002", berth.StateLost, "")
	s.ends("workers-003", berth.StateCancelled, "")
	s.ends("workers-004", berth.StateSucceeded, "")
	s.pass()
	s.did(t, "make workers-005", "make workers-006", "make workers-007", "make workers-008")
	s.stands(t, 4, 0, 4, 0)
	for _, cause := range []berth.Cause{berth.CauseOOMKilled, berth.CauseDeletedExternally, berth.CauseCancelled, berth.CauseUnknown} {
		if s.group().Lost[string(cause)] != 1 {
			t.Errorf("lost: %v", s.group().Lost)
		}
	}
	s.ends("workers-005", berth.StateFailed, berth.CauseOOMKilled)
	s.pass()
	if s.group().Lost[string(berth.CauseOOMKilled)] != 2 {
		t.Errorf("lost: %v", s.group().Lost)
	}
}

func TestWorkersThatFailAtOnceAreTriedOneByOneAndGivenUp(t *testing.T) {
	s := running(fixed(0))
	s.scaled(fixed(3))
	s.pass()
	s.did(t, "make workers-001", "make workers-002", "make workers-003")
	for _, id := range s.ids() {
		s.ends(id, berth.StateFailed, berth.CauseExitedNonZero)
	}
	s.pass()
	s.did(t) // three in a row: it waits for 4 s
	if g := s.group(); g.Diagnosis == nil || g.Diagnosis.Cause != berth.CauseExitedNonZero {
		t.Errorf("nobody is told why: %+v", g)
	}
	s.later(4 * time.Second)
	s.pass()
	s.did(t, "make workers-004")
	s.later(time.Minute)
	s.pass()
	s.did(t) // that one has to be ready first
	s.ends("workers-004", berth.StateFailed, berth.CauseExitedNonZero)
	s.pass()
	s.later(8 * time.Second)
	s.pass()
	s.did(t, "make workers-005")
	s.ends("workers-005", berth.StateFailed, berth.CauseExitedNonZero)
	s.pass()
	s.later(time.Hour)
	s.pass()
	s.did(t)
	if w := s.record.Cluster.Warnings; len(w) != 1 || !strings.Contains(w[0], "5 workers of group workers in a row ended before they were ready") {
		t.Errorf("warnings %q", w)
	}
	s.scaled(fixed(2))
	s.pass()
	s.did(t, "make workers-006", "make workers-007")
	if w := s.record.Cluster.Warnings; len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

func TestAWorkerThatIsReadyEndsTheCaution(t *testing.T) {
	s := running(fixed(0))
	s.scaled(fixed(3))
	s.pass()
	s.ends("workers-001", berth.StateFailed, berth.CauseExitedNonZero)
	s.pass()
	s.log = nil
	s.joins("workers-002")
	s.pass()
	s.did(t, "make workers-004")
	if len(s.record.Keeping.Failing) != 0 {
		t.Errorf("failing: %v", s.record.Keeping.Failing)
	}
}

func TestTooManyWorkersEndInTheOrderOfWhatTheyDo(t *testing.T) {
	s := running(fixed(5))
	s.computes("workers-001", 1)
	s.scaled(fixed(7))
	s.pass()
	s.starts("workers-006") // and the head does not know it
	s.pass()
	s.did(t, "make workers-006", "make workers-007")
	for _, c := range []struct {
		to   int
		did  string
		says [4]int
	}{
		{6, "cancel workers-007", [4]int{6, 5, 1, 1}},
		{5, "cancel workers-006", [4]int{5, 5, 0, 2}},
		{4, "drain workers-005", [4]int{4, 4, 0, 3}},
		{3, "drain workers-004", [4]int{3, 3, 0, 4}},
		{2, "drain workers-003", [4]int{2, 2, 0, 5}},
		{1, "drain workers-002", [4]int{1, 1, 0, 6}},
		{0, "drain workers-001", [4]int{0, 0, 0, 7}},
	} {
		s.scaled(fixed(c.to))
		s.pass()
		s.did(t, c.did)
		s.stands(t, c.says[0], c.says[1], c.says[2], c.says[3])
	}
	s.pass()
	s.did(t)
}

func TestAWorkerThatTheHeadKnewFirstIsDrained(t *testing.T) {
	s := running(fixed(1))
	s.change("workers-001", func(t *berth.Task) { t.State = berth.StateLaunching }) // that it runs is not seen yet
	s.scaled(fixed(0))
	s.pass()
	s.did(t, "drain workers-001")
	s.stands(t, 0, 0, 0, 1)
}

func TestADrainedWorkerEndsAndIsNotLost(t *testing.T) {
	for name, end := range map[string]struct {
		change func(*site)
		did    []string
	}{
		"when what it held is moved":      {func(s *site) { s.drained("workers-002") }, []string{"cancel workers-002"}},
		"when the head forgot it":         {func(s *site) { delete(s.state.Workers, podOf("workers-002")) }, []string{"cancel workers-002"}},
		"when it took too long":           {func(s *site) { s.later(10 * time.Minute) }, []string{"cancel workers-002"}},
		"late, though nobody answers":     {func(s *site) { s.silent(errors.New("gone")); s.later(10 * time.Minute) }, []string{"cancel workers-002"}},
		"not while it computes":           {func(s *site) { s.later(9 * time.Minute) }, nil},
		"not while nobody answers":        {func(s *site) { s.silent(errors.New("gone")); s.later(time.Minute) }, nil},
		"by itself":                       {func(s *site) { s.ends("workers-002", berth.StateSucceeded, "") }, nil},
		"not by what was true beforehand": {func(s *site) { s.drained("workers-002"); s.stateAt = *s.record.Keeping.Members["workers-002"].Draining }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := running(fixed(2))
			s.computes("workers-002", 1)
			s.computes("workers-001", 2)
			s.scaled(fixed(1))
			s.pass()
			s.did(t, "drain workers-002")
			s.later(time.Second)
			end.change(s)
			s.pass()
			s.did(t, end.did...)
			s.pass()
			s.did(t) // once is enough
			s.ends("workers-002", berth.StateCancelled, "")
			s.pass()
			if len(end.did) > 0 && (len(s.group().Lost) > 0 || len(s.ids()) != 1) {
				t.Errorf("lost %v of %v", s.group().Lost, s.ids())
			}
			s.did(t)
		})
	}
}

func TestWhatAHeadForgotOfADrainIsToldAgain(t *testing.T) {
	s := running(fixed(1))
	s.scaled(fixed(0))
	s.pass()
	s.state.Workers[podOf("workers-001")] = Worker{Running: true} // its answer was lost
	s.pass()
	s.did(t, "drain workers-001", "drain workers-001")
	s.state.Workers[podOf("workers-001")] = Worker{Running: true, Draining: true, Trouble: "nobody has room"}
	s.pass()
	s.is(t, berth.ClusterRunning, "a worker that is too many can't end yet: nobody has room")
}

func TestNothingThatRunsIsRemovedWhileTheHeadDoesNotAnswer(t *testing.T) {
	s := running(fixed(2))
	s.scaled(fixed(3))
	s.pass()
	s.silent(errors.New("no answer"))
	s.scaled(fixed(0))
	s.pass()
	s.did(t, "make workers-003", "cancel workers-003") // which has not started
	s.stands(t, 0, 2, 0, 1)
	s.is(t, berth.ClusterRunning, "its head does not answer: no answer")
	s.answers()
	s.joins("workers-001")
	s.joins("workers-002")
	s.pass()
	s.did(t, "drain workers-001", "drain workers-002")
}

func TestAnEngineGetsMoreWorkersAtOnceAndFewerInAWhile(t *testing.T) {
	s := running(adaptive(1, 4))
	s.stands(t, 1, 1, 0, 0)
	s.state.Target = 9
	s.pass()
	s.did(t, "make workers-002", "make workers-003", "make workers-004")
	for _, id := range s.ids() {
		s.joins(id)
	}
	s.computes("workers-004", 1)
	s.state.Target = 0
	s.pass()
	s.later(4 * time.Second)
	s.pass()
	s.did(t)
	s.state.Target = 4
	s.pass()
	s.state.Target = 0
	s.pass()
	s.later(4 * time.Second)
	s.pass()
	s.did(t) // it wanted as many in between
	s.later(time.Second)
	s.pass()
	s.did(t, "drain workers-001", "drain workers-002", "drain workers-003") // one stays, and computes
	s.stands(t, 1, 1, 0, 3)
}

func TestWhatIsBusyIsNotEndedForTheEngine(t *testing.T) {
	s := running(adaptive(0, 2))
	s.state.Target = 2
	s.pass()
	s.joins("workers-001")
	s.joins("workers-002")
	s.computes("workers-001", 1)
	s.computes("workers-002", 1)
	s.log, s.state.Target = nil, 0
	s.pass()
	s.later(5 * time.Second)
	s.pass()
	s.did(t)
	s.stands(t, 0, 2, 0, 0)
	s.computes("workers-001", 0)
	s.pass()
	s.did(t, "drain workers-001")
}

func TestGroupsShareWhatTheEngineWants(t *testing.T) {
	s := running(berth.ClusterGroup{Name: "a", Count: 2}, berth.ClusterGroup{Name: "b", Max: 3}, berth.ClusterGroup{Name: "c", Min: 1, Max: 9})
	for target, want := range map[int][2]int{9: {3, 4}, 5: {3, 1}, 100: {3, 9}} {
		s.record.Keeping.Targets, s.state.Target = nil, target
		next, _ := decide(s.view)
		if got := [2]int{next.Cluster.Groups[1].Wanted, next.Cluster.Groups[2].Wanted}; got != want {
			t.Errorf("of %d: %v, want %v", target, got, want)
		}
	}
}

// idle has a site do nothing, without a client.
func (s *site) idle() { s.state.Unfinished, s.state.Clients, s.state.Mark = 0, 0, "1" }

// A head knows of clients that came and went while no Berth looked.
func TestAClientThatNobodySawCountsToo(t *testing.T) {
	s := running(fixed(1))
	s.record.Cluster.Spec.NoClientTimeout = time.Minute
	s.idle()
	s.pass()
	s.later(10 * time.Minute)
	alone := 10 * time.Second
	s.state.Alone = &alone
	s.pass()
	s.is(t, berth.ClusterRunning, "")
	if at := s.record.Cluster.EndsAt; at == nil || !at.Equal(t0.Add(10*time.Minute+50*time.Second)) {
		t.Errorf("it ends at %v", at)
	}
	s.later(50 * time.Second)
	alone = time.Minute
	s.pass()
	s.is(t, berth.ClusterStopping, "no client was connected for 1m0s")
}

func TestWhatNobodyUsesEnds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*berth.ClusterSpec)
		reason string
	}{
		"idle":             {func(s *berth.ClusterSpec) { s.IdleTimeout = time.Minute }, "it was idle for 1m0s"},
		"without a client": {func(s *berth.ClusterSpec) { s.NoClientTimeout = time.Minute }, "no client was connected for 1m0s"},
		"the first of both": {func(s *berth.ClusterSpec) {
			s.IdleTimeout, s.NoClientTimeout = time.Hour, time.Minute
		}, "no client was connected for 1m0s"},
		"over its lifetime": {func(s *berth.ClusterSpec) { s.MaxLifetime = time.Minute }, "its maximal lifetime of 1m0s is over"},
	} {
		t.Run(name, func(t *testing.T) {
			s := running(fixed(1))
			c.change(&s.record.Cluster.Spec)
			s.idle()
			s.pass()
			if at := s.record.Cluster.EndsAt; at == nil || !at.Equal(t0.Add(time.Minute)) {
				t.Errorf("it ends at %v", at)
			}
			s.later(time.Minute - time.Second)
			s.pass()
			s.is(t, berth.ClusterRunning, "")
			s.later(time.Second)
			s.pass()
			s.is(t, berth.ClusterStopping, c.reason)
			if s.record.Keeping.Failed || s.record.Cluster.EndsAt != nil {
				t.Errorf("%+v", s.record)
			}
		})
	}
}

func TestWhatIsUsedGoesOn(t *testing.T) {
	for name, use := range map[string]func(*site){
		"it computes":                           func(s *site) { s.state.Unfinished, s.state.Clients = 1, 1 },
		"it computed since it was seen":         func(s *site) { s.state.Mark, s.state.Clients = "2", 1 },
		"nobody knows, as it does not answer":   func(s *site) { s.silent(errors.New("gone")) },
		"what is known is old":                  func(s *site) { s.stateAt = s.now.Add(-freshFor) },
		"its infrastructure is out of reach":    func(s *site) { away := "away"; s.head.Stale = &away; s.silent(nil) },
		"it was used until it did answer again": func(s *site) { s.state.Unfinished, s.state.Clients = 3, 3 },
	} {
		t.Run(name, func(t *testing.T) {
			s := running(fixed(1))
			s.record.Cluster.Spec.IdleTimeout, s.record.Cluster.Spec.NoClientTimeout = time.Minute, time.Minute
			s.idle()
			s.pass()
			s.later(time.Hour)
			use(s)
			s.pass()
			if s.record.Cluster.State != berth.ClusterRunning {
				t.Errorf("it is %s: %s", s.record.Cluster.State, *s.record.Cluster.Reason)
			}
		})
	}
}

func TestIdlenessBeginsAnewAfterAComputation(t *testing.T) {
	s := running(fixed(1))
	s.record.Cluster.Spec.IdleTimeout = time.Minute
	s.idle()
	s.pass()
	s.later(50 * time.Second)
	s.state.Unfinished = 1
	s.pass()
	if s.record.Cluster.IdleSince != nil {
		t.Errorf("it computes, and is idle since %s", s.record.Cluster.IdleSince)
	}
	s.later(time.Second)
	s.idle()
	s.pass()
	if since := s.record.Cluster.IdleSince; since == nil || !since.Equal(s.now) {
		t.Errorf("idle since %v", since)
	}
	s.later(59 * time.Second)
	s.pass()
	s.is(t, berth.ClusterRunning, "")
}

func TestAClusterEndsWithItsHead(t *testing.T) {
	timed := berth.Diagnosis{Cause: berth.CauseTimedOut}
	failed := berth.Diagnosis{Cause: berth.CauseOOMKilled}
	for name, c := range map[string]struct {
		state     berth.TaskState
		diagnosis *berth.Diagnosis
		spec      func(*berth.ClusterSpec)
		reason    string
		cause     berth.Cause // empty: it ends as somebody wanted
	}{
		"that failed":            {berth.StateFailed, &failed, nil, "its head failed: OOMKilled", berth.CauseOOMKilled},
		"that is lost":           {berth.StateLost, nil, nil, "its head is lost", berth.CauseDeletedExternally},
		"that ended":             {berth.StateSucceeded, nil, nil, "its head ended", berth.CauseUnknown},
		"that was idle":          {berth.StateSucceeded, nil, func(s *berth.ClusterSpec) { s.IdleTimeout = time.Hour }, "its head ended by itself", ""},
		"that reached its limit": {berth.StateFailed, &timed, func(s *berth.ClusterSpec) { s.MaxLifetime = time.Hour }, "its maximal lifetime of 1h0m0s is over", ""},
	} {
		s := running(fixed(1))
		if c.spec != nil {
			c.spec(&s.record.Cluster.Spec)
		}
		s.head.State, s.head.Diagnosis = c.state, c.diagnosis
		s.pass()
		t.Run(name, func(t *testing.T) {
			s.is(t, berth.ClusterStopping, c.reason)
			d := s.record.Cluster.Diagnosis
			if s.record.Keeping.Failed != (c.cause != "") || (d == nil) != (c.cause == "") || d != nil && d.Cause != c.cause {
				t.Errorf("failed: %v, %+v", s.record.Keeping.Failed, d)
			}
		})
	}
}

func TestAClusterWhoseHeadWasCancelledFailed(t *testing.T) {
	s := running(fixed(1))
	s.head.State = berth.StateCancelled
	s.pass()
	s.is(t, berth.ClusterStopping, "its head was cancelled")
	if !s.record.Keeping.Failed {
		t.Error("nobody wanted that")
	}
}

func TestAHeadThatNeverAnswersEndsItsCluster(t *testing.T) {
	refused := berth.Errorf(berth.CodeForbidden, "pods/portforward is forbidden")
	for name, c := range map[string]struct {
		after   time.Duration
		trouble error
		state   berth.ClusterState
		reason  string
	}{
		"at first nothing is wrong":       {slowHead, errors.New("refused"), berth.ClusterStarting, "its head runs, and does not answer yet"},
		"soon it is waited for":           {headLimit - time.Second, errors.New("refused"), berth.ClusterStarting, "does not answer yet: refused"},
		"late it is given up":             {headLimit, errors.New("refused"), berth.ClusterStopping, "its head never answered"},
		"not before it was asked":         {24 * time.Hour, nil, berth.ClusterStarting, "does not answer yet"},
		"what is forbidden stays so":      {time.Second, refused, berth.ClusterStopping, "its head can't be reached: pods/portforward is forbidden"},
		"what is out of reach may answer": {slowHead + time.Second, berth.Errorf(berth.CodeUnavailable, "away"), berth.ClusterStarting, "does not answer yet: away"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(fixed(1))
			s.pass()
			s.headRuns()
			s.pass()
			s.later(c.after)
			s.silent(c.trouble)
			s.pass()
			s.is(t, c.state, c.reason)
			if s.record.Keeping.Failed != (c.state == berth.ClusterStopping) {
				t.Errorf("failed: %v", s.record.Keeping.Failed)
			}
		})
	}
}

func TestAHeadThatAnsweredOnceIsWaitedFor(t *testing.T) {
	for _, trouble := range []error{errors.New("refused"), berth.Errorf(berth.CodeForbidden, "forbidden")} {
		s := running(fixed(1))
		s.silent(trouble)
		s.later(24 * time.Hour)
		s.pass()
		s.is(t, berth.ClusterRunning, "its head does not answer: "+trouble.Error())
		s.stands(t, 1, 1, 0, 0)
	}
}

func TestADeletedClusterStopsAndIsOverOnceNothingIsLeft(t *testing.T) {
	for name, s := range map[string]*site{"before it began": newSite(fixed(2)), "while it runs": running(fixed(2))} {
		s.deleted()
		s.left = 3
		acts := s.pass()
		if s.is(t, berth.ClusterStopping, "it was deleted"); acts.finish || acts.makeHead || len(acts.make) > 0 {
			t.Errorf("%s: %+v", name, acts)
		}
		s.stands(t, 0, 0, 0, len(s.record.Keeping.Members))
		if acts = s.pass(); acts.finish {
			t.Errorf("%s: over with %d tasks left", name, s.left)
		}
		if s.left = 0; !s.pass().finish {
			t.Errorf("%s: not over", name)
		}
	}
}

func TestVersionsThatDifferAreWarnedOf(t *testing.T) {
	s := running(fixed(1))
	s.state.Versions = map[string]string{"python": "3.12.1"}
	s.state.Workers[podOf("workers-001")] = Worker{Running: true, Versions: map[string]string{"python": "3.13.0"}}
	s.pass()
	if w := s.record.Cluster.Warnings; len(w) != 1 || !strings.Contains(w[0], "Python of the workers of group workers is 3.13, of the head 3.12") {
		t.Errorf("warnings %q", w)
	}
	s.silent(nil)
	s.pass()
	if len(s.record.Cluster.Warnings) != 1 || s.group().Versions["python"] != "3.13.0" {
		t.Errorf("what was known is forgotten: %+v", s.record.Cluster)
	}
}

func TestATaskThatCannotBeReadIsNotReplaced(t *testing.T) {
	s := running(fixed(1))
	s.workers["workers-001"] = berth.Task{}
	s.pass()
	s.did(t)
	s.stands(t, 1, 0, 1, 0)
}
