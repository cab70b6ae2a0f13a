package store

import (
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func newSchedule(name, owner string) *berth.ScheduleRecord {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &berth.ScheduleRecord{Caller: berth.Caller{Name: owner, Role: berth.RoleWrite}, Schedule: berth.Schedule{
		Name: name, Owner: owner, Infrastructure: "here", Cron: "0 6 * * *", Timezone: "Europe/Amsterdam", Overlap: berth.OverlapSkip, CatchUp: berth.CatchUpLast, CreatedAt: at,
		Command: []string{"run", "busybox"}, Task: &berth.TaskSpec{Image: "busybox", Timeout: time.Hour}, ScheduleState: berth.ScheduleState{From: at},
	}}
}

func TestSchedulesAreKept(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		for _, r := range []*berth.ScheduleRecord{newSchedule("nightly", "ada"), newSchedule("nightly", "bob"), newSchedule("hourly", "ada")} {
			if err := s.AddSchedule(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.AddSchedule(t.Context(), newSchedule("nightly", "ada")); berth.CodeOf(err) != berth.CodeConflict {
			t.Errorf("one of the same name: %v", err)
		}
		due, id := time.Date(2026, 1, 3, 5, 0, 0, 0, time.UTC), "t1"
		state := berth.ScheduleState{From: due, LastAt: &due, Last: &id}
		if err := s.CommitSchedule(t.Context(), berth.Lease{}, "ada", "nightly", state); err != nil {
			t.Fatal(err)
		}
		if err := s.PauseSchedule(t.Context(), "ada", "nightly", true, due.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		want := newSchedule("nightly", "ada")
		want.Schedule.ScheduleState, want.Schedule.Paused = state, true
		got, err := open().Schedule(t.Context(), "ada", "nightly")
		if err != nil || asJSON(t, got) != asJSON(t, want) {
			t.Errorf("%s, %v, want\n%s", asJSON(t, got), err, asJSON(t, want))
		}
		if err := s.PauseSchedule(t.Context(), "ada", "nightly", false, due.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Schedule(t.Context(), "ada", "nightly"); err != nil || got.Schedule.Paused || !got.Schedule.From.Equal(due.Add(2*time.Hour)) || *got.Schedule.Last != "t1" {
			t.Errorf("going on: %+v, %v", got, err)
		}
		for caller, want := range map[berth.Role]int{berth.RoleWrite: 2, berth.RoleAdmin: 3} {
			if all, err := s.Schedules(t.Context(), berth.Caller{Name: "ada", Role: caller}); err != nil || len(all) != want || all[0].Schedule.Name != "hourly" {
				t.Errorf("%s sees %d, %v", caller, len(all), err)
			}
		}
		if err := s.DeleteSchedule(t.Context(), "ada", "nightly"); err != nil {
			t.Fatal(err)
		}
		if err := s.CommitSchedule(t.Context(), berth.Lease{}, "ada", "nightly", state); err != nil { // it was under way
			t.Fatal(err)
		}
		if _, err := s.Schedule(t.Context(), "ada", "nightly"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("deleted: %v", err)
		}
		if of, err := s.SchedulesOf(t.Context(), "here"); err != nil || len(of) != 2 {
			t.Errorf("of the infrastructure: %d, %v", len(of), err)
		}
		if live, err := s.LiveInfrastructures(t.Context()); err != nil || len(live) != 1 {
			t.Errorf("infrastructures that somebody has to look after: %v, %v", live, err)
		}
	})
}
