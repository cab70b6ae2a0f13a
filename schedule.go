package berth

import (
	"fmt"
	"reflect"
	"time"
)

// Overlap says what becomes of a schedule that is due while what it started the
// last time has not ended.
type Overlap string

const (
	OverlapSkip    Overlap = "skip"    // nothing is started this time
	OverlapQueue   Overlap = "queue"   // it is started when the other has ended; one waits at most
	OverlapReplace Overlap = "replace" // the other is cancelled
)

// CatchUp says what becomes of times that passed while nobody was there.
type CatchUp string

const (
	CatchUpNone CatchUp = "none" // nothing
	CatchUpLast CatchUp = "last" // the last of them is made up for
)

// ScheduleGrace is how late a schedule may be started without having been missed.
const ScheduleGrace = time.Minute

// Schedule starts a task, a call or a workflow again and again.
type Schedule struct {
	Name      string         `json:"name"`
	Cron      string         `json:"cron"`
	Timezone  string         `json:"timezone"` // empty: UTC
	Overlap   Overlap        `json:"overlap"`
	CatchUp   CatchUp        `json:"catchUp"`
	Command   []string       `json:"command"` // as it was typed, for people
	Task      *TaskSpec      `json:"task"`    // one of these two
	Run       *RunSubmission `json:"run"`
	Owner     string         `json:"owner"`
	CreatedAt time.Time      `json:"createdAt"`
	Paused    bool           `json:"paused"`

	// Infrastructure is that to which it belongs: who reconciles it starts it.
	Infrastructure string `json:"infrastructure"`

	ScheduleState
	NextAt *time.Time `json:"nextAt"` // nil while it is paused
}

// ScheduleState is what became of a schedule so far.
type ScheduleState struct {
	From    time.Time  `json:"from"`    // times before this are not made up for: when it was made, or went on
	LastAt  *time.Time `json:"lastAt"`  // when it was due last
	Last    *string    `json:"last"`    // id of the task or the run that it started last
	Waiting *time.Time `json:"waiting"` // since when one waits for another's end
	Note    *string    `json:"note"`    // why nothing was started the last time
}

// Validate says what is wrong with what a schedule is asked to be; whether its
// cron expression is one is told by who reads it.
func (s *Schedule) Validate() error {
	if !namePattern.MatchString(s.Name) {
		return Errorf(CodeInvalid, "schedule name %q: use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit", s.Name)
	}
	if s.Overlap == "" {
		s.Overlap = OverlapSkip
	}
	if s.CatchUp == "" {
		s.CatchUp = CatchUpNone
	}
	if s.Overlap != OverlapSkip && s.Overlap != OverlapQueue && s.Overlap != OverlapReplace {
		return Errorf(CodeInvalid, "overlap %q: choose skip, queue or replace", s.Overlap)
	}
	if s.CatchUp != CatchUpNone && s.CatchUp != CatchUpLast {
		return Errorf(CodeInvalid, "catch-up %q: choose none or last", s.CatchUp)
	}
	if (s.Task == nil) == (s.Run == nil) {
		return Errorf(CodeInvalid, "a schedule starts either a task or a run of a workflow")
	}
	if s.Task != nil {
		return s.Task.Validate()
	}
	return nil
}

// Same reports whether two schedules were asked for in the same way.
func (s *Schedule) Same(other *Schedule) bool {
	return s.Cron == other.Cron && s.Timezone == other.Timezone && s.Overlap == other.Overlap && s.CatchUp == other.CatchUp && reflect.DeepEqual(s.Task, other.Task) && reflect.DeepEqual(s.Run, other.Run)
}

// Key is the idempotency key of what a schedule starts at a time.
func (s *Schedule) Key(due time.Time) string {
	return fmt.Sprintf("schedule/%s/%d/%d", s.Name, s.CreatedAt.UnixNano(), due.Unix())
}

// NoSuchSchedule is the error for a name that no schedule has.
func NoSuchSchedule(name string) error {
	return Errorf(CodeNotFound, "there is no schedule %s; berth schedule list shows those that there are", name)
}

// ScheduleRecord is a schedule as it is stored, with what nobody is shown.
type ScheduleRecord struct {
	Schedule Schedule
	Caller   Caller // in whose name it starts what it starts
}
