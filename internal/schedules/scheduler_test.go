package schedules

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
)

// office is a Store and a Service of a test: what is started goes on for a while.
type office struct {
	mu      sync.Mutex
	records map[string]berth.ScheduleRecord
	keys    map[string]string    // ids by idempotency key
	ends    map[string]time.Time // of what was started, by id
	started []string             // when, and what
	lasts   time.Duration
	errs    []error // of the next submissions
	failing int     // commits that fail
}

func newOffice(lasts time.Duration, schedule berth.Schedule) *office {
	o := &office{records: map[string]berth.ScheduleRecord{}, keys: map[string]string{}, ends: map[string]time.Time{}, lasts: lasts}
	schedule.Name, schedule.Owner, schedule.Infrastructure, schedule.CreatedAt = "it", "ada", "here", time.Now()
	schedule.From = schedule.CreatedAt
	if schedule.Run == nil {
		schedule.Task = &berth.TaskSpec{Image: "busybox"}
	}
	if err := schedule.Validate(); err != nil {
		panic(err)
	}
	o.records["it"] = berth.ScheduleRecord{Schedule: schedule, Caller: berth.Caller{Name: "ada", Role: berth.RoleWrite}}
	return o
}

func (o *office) SchedulesOf(context.Context, string) ([]berth.ScheduleRecord, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return []berth.ScheduleRecord{o.records["it"]}, nil
}

func (o *office) CommitSchedule(_ context.Context, _ berth.Lease, _, name string, state berth.ScheduleState) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing > 0 {
		o.failing--
		return berth.Errorf(berth.CodeExhausted, "the disk is full")
	}
	r := o.records[name]
	r.Schedule.ScheduleState = state
	o.records[name] = r
	return nil
}

func (o *office) start(ctx context.Context, kind, key string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if caller, _ := berth.CallerFrom(ctx); caller.Name != "ada" {
		return "", fmt.Errorf("it is started for %q", caller.Name)
	}
	if len(o.errs) > 0 {
		err := o.errs[0]
		if o.errs = o.errs[1:]; err != nil {
			return "", err
		}
	}
	if id, ok := o.keys[key]; ok {
		return id, nil
	}
	id := fmt.Sprintf("t%d", len(o.keys)+1)
	if kind == "run" {
		id = berth.NewRunID(id)
	}
	o.keys[key], o.ends[id] = id, time.Now().Add(o.lasts)
	o.started = append(o.started, time.Now().UTC().Format("15:04"))
	return id, nil
}

func (o *office) SubmitTask(ctx context.Context, s berth.Submission) (berth.Task, error) {
	id, err := o.start(ctx, "task", s.Key)
	return berth.Task{ID: id}, err
}

func (o *office) StartRun(ctx context.Context, s berth.RunSubmission) (berth.Run, error) {
	id, err := o.start(ctx, "run", s.Key)
	return berth.Run{ID: id}, err
}

func (o *office) ended(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !time.Now().Before(o.ends[id])
}

func (o *office) Task(_ context.Context, id string) (berth.Task, error) {
	if o.ended(id) {
		return berth.Task{State: berth.StateSucceeded}, nil
	}
	return berth.Task{State: berth.StateRunning}, nil
}

func (o *office) Run(_ context.Context, id string) (berth.Run, error) {
	if o.ended(id) {
		return berth.Run{State: berth.RunSucceeded}, nil
	}
	return berth.Run{State: berth.RunRunning}, nil
}

func (o *office) cancel(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends[id] = time.Now().Add(5 * time.Second) // it takes a moment
	o.started = append(o.started, "cancelled")
}

func (o *office) CancelTask(_ context.Context, id string) (berth.Task, error) {
	if !o.ended(id) && o.endsLater(id) {
		o.cancel(id)
	}
	return berth.Task{}, nil
}

func (o *office) CancelRun(ctx context.Context, id string) (berth.Run, error) {
	_, err := o.CancelTask(ctx, id)
	return berth.Run{}, err
}

func (o *office) endsLater(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Until(o.ends[id]) > 5*time.Second
}

// during has a Scheduler start what is due for a while. The clock is the test's
// own, and begins at midnight, UTC.
func (o *office) during(d time.Duration) {
	s := New(o, o, func(string) (berth.Lease, error) { return berth.Lease{}, nil }, slog.New(slog.DiscardHandler))
	s.Take("here")
	time.Sleep(d)
	s.Close()
}

func (o *office) want(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(o.started, " "); got != want {
		t.Errorf("started at %s, want %s", got, want)
	}
}

func TestWhatIsDueIsStarted(t *testing.T) {
	for name, run := range map[string]*berth.RunSubmission{"a task": nil, "a workflow": {On: "here"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffice(time.Minute, berth.Schedule{Cron: "*/20 * * * *", Run: run})
				o.during(time.Hour + time.Second)
				o.want(t, "00:20 00:40 01:00")
				if r := o.records["it"].Schedule; r.Last == nil || berth.IsRunID(*r.Last) != (run != nil) || !r.LastAt.Equal(time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC)) || r.Note != nil {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestWhatIsDueWhileTheLastGoesOn(t *testing.T) {
	for overlap, want := range map[berth.Overlap]string{
		berth.OverlapSkip:    "00:10 00:40 01:10",
		berth.OverlapQueue:   "00:10 00:35 01:00",
		berth.OverlapReplace: "00:10 cancelled 00:20 cancelled 00:30 cancelled 00:40 cancelled 00:50 cancelled 01:00 cancelled 01:10",
	} {
		t.Run(string(overlap), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffice(25*time.Minute, berth.Schedule{Cron: "*/10 * * * *", Overlap: overlap})
				o.during(time.Hour + 15*time.Minute)
				o.want(t, want)
			})
		})
	}
}

func TestWhatWasDueWhileNobodyWasThere(t *testing.T) {
	for catchUp, want := range map[berth.CatchUp]string{
		berth.CatchUpNone: "00:20 04:00",
		berth.CatchUpLast: "00:20 03:50 04:00",
	} {
		t.Run(string(catchUp), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffice(time.Minute, berth.Schedule{Cron: "*/20 * * * *", CatchUp: catchUp})
				o.during(30 * time.Minute)
				time.Sleep(3*time.Hour + 20*time.Minute) // 03:50
				o.during(15 * time.Minute)
				o.want(t, want)
			})
		})
	}
}

// A process that was started again within a minute has missed nothing.
func TestWhatWasDueAMomentAgoIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(time.Minute, berth.Schedule{Cron: "*/20 * * * *"})
		o.during(19*time.Minute + 50*time.Second)
		time.Sleep(30 * time.Second)
		o.during(time.Minute)
		o.want(t, "00:20")
	})
}

// What was started and could not be noted is not started again.
func TestATimeIsStartedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(time.Minute, berth.Schedule{Cron: "*/20 * * * *"})
		o.failing = 5
		o.during(30 * time.Minute)
		o.want(t, "00:20")
		if o.records["it"].Schedule.LastAt == nil {
			t.Error("and nobody knows of it")
		}
	})
}

func TestWhatCannotBeStartedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(time.Minute, berth.Schedule{Cron: "*/20 * * * *"})
		o.errs = []error{berth.Errorf(berth.CodeUnavailable, "nobody is there"), berth.Errorf(berth.CodeUnavailable, "nobody is there"), nil, berth.Errorf(berth.CodeNotFound, "there is no package text")}
		o.during(50 * time.Minute)
		o.want(t, "00:20") // and not at 00:40
		if n := o.records["it"].Schedule.Note; n == nil || !strings.Contains(*n, "there is no package text") {
			t.Errorf("%v", n)
		}
		o.during(20 * time.Minute)
		o.want(t, "00:20 01:00")
		if n := o.records["it"].Schedule.Note; n != nil {
			t.Errorf("%s", *n)
		}
	})
}

func TestAPausedScheduleStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(time.Minute, berth.Schedule{Cron: "*/20 * * * *", Paused: true, CatchUp: berth.CatchUpLast})
		o.during(time.Hour)
		o.want(t, "")
		if r := o.records["it"].Schedule; Next(&r, time.Now()) != nil {
			t.Error("it is due nevertheless")
		}
		r := o.records["it"]
		r.Schedule.Paused, r.Schedule.From = false, time.Now()
		o.records["it"] = r
		o.during(30 * time.Minute)
		o.want(t, "01:20")
	})
}

// Clocks go ahead in the night of 29 March 2026 and back in that of 25 October.
func TestAScheduleIsStartedOnceInANightInWhichClocksAreSet(t *testing.T) {
	for _, day := range []time.Time{time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC), time.Date(2026, 10, 24, 20, 0, 0, 0, time.UTC)} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(day))
			o := newOffice(time.Minute, berth.Schedule{Cron: "30 2 * * *", Timezone: "Europe/Amsterdam"})
			o.during(12 * time.Hour)
			want := "01:00" // when clocks go from 02:00 to 03:00
			if day.Month() == time.October {
				want = "00:30" // 02:30, the first time
			}
			if !slices.Equal(o.started, []string{want}) {
				t.Errorf("in the night after %s: %v, want %s", day, o.started, want)
			}
		})
	}
}
