package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// onlyTasks is a service that knows some tasks, and nothing else.
type onlyTasks struct {
	berth.Service
	tasks map[string]berth.Task
}

func (s onlyTasks) Task(_ context.Context, id string) (berth.Task, error) {
	if task, ok := s.tasks[id]; ok {
		return task, nil
	}
	return berth.Task{}, berth.Errorf(berth.CodeNotFound, "no task %s", id)
}

// Only what no task needs any more, and nobody was promised, is removed.
func TestWorkingFoldersThatAreRemoved(t *testing.T) {
	lately, longAgo := time.Now().Add(-time.Minute), time.Now().Add(-48*time.Hour)
	ended := func(state berth.TaskState, at time.Time, result string) berth.Task {
		return berth.Task{State: state, FinishedAt: &at, Result: json.RawMessage(result)}
	}
	for name, tt := range map[string]struct {
		task berth.Task
		kept string // empty: it is removed
	}{
		"failed":                        {ended(berth.StateFailed, longAgo, ""), ""},
		"cancelled":                     {ended(berth.StateCancelled, longAgo, ""), ""},
		"succeeded":                     {ended(berth.StateSucceeded, longAgo, ""), ""},
		"a result elsewhere":            {ended(berth.StateSucceeded, longAgo, `"/data/out.txt"`), ""},
		"another task's folder":         {ended(berth.StateSucceeded, longAgo, `"/data/.berth/work/x2/out"`), ""},
		"a number":                      {ended(berth.StateSucceeded, longAgo, `7`), ""},
		"goes on":                       {berth.Task{State: berth.StateRunning}, "goes on"},
		"waits":                         {berth.Task{State: berth.StateQueued}, "goes on"},
		"ended lately":                  {ended(berth.StateFailed, lately, ""), "ago"},
		"a result in it":                {ended(berth.StateSucceeded, longAgo, `"/data/.berth/work/x/out.txt"`), "result"},
		"it is the result":              {ended(berth.StateSucceeded, longAgo, `"/data/.berth/work/x"`), "result"},
		"a result in a list":            {ended(berth.StateSucceeded, longAgo, `[1, {"a": ["/data/.berth/work/x/out.txt"]}]`), "result"},
		"a result as seen elsewhere":    {ended(berth.StateSucceeded, longAgo, `"/mnt/shared/.berth/work/x/out.txt"`), "result"},
		"a directory with it":           {ended(berth.StateSucceeded, longAgo, `"/data/.berth"`), "result"},
		"all that is shared":            {ended(berth.StateSucceeded, longAgo, `"/data/"`), "result"},
		"a result that is not for here": {ended(berth.StateSucceeded, longAgo, `not JSON`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := workFolder{Path: "/data/.berth/work/x", Task: "x"}
			if err := f.decide(t.Context(), onlyTasks{tasks: map[string]berth.Task{"x": tt.task}}, time.Hour); err != nil {
				t.Fatal(err)
			}
			if f.Removed != (tt.kept == "") || !strings.Contains(f.Kept, tt.kept) || f.State == nil || *f.State != tt.task.State {
				t.Errorf("%+v", f)
			}
		})
	}
	f := workFolder{Path: "/data/.berth/work/y", Task: "y"}
	if err := f.decide(t.Context(), onlyTasks{}, 0); err != nil || f.Removed || f.State != nil || f.Kept == "" {
		t.Errorf("of nobody: %+v, %v", f, err)
	}
}
