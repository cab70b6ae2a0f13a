package logs

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

func TestOldLogsOfEndedTasksAreRemovedAndThatIsTold(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const days = 24 * time.Hour
	for name, tt := range map[string]struct {
		limits berth.LogLimits
		left   string // tasks, oldest first; b lives
		why    string
	}{
		"nothing is too much": {berth.LogLimits{MaxAge: 100 * days, MaxSize: 1 << 30}, "a b c d", ""},
		"without limits":      {berth.LogLimits{}, "a b c d", ""},
		"by age":              {berth.LogLimits{MaxAge: 25 * days}, "b d", "max_age"},
		"by size":             {berth.LogLimits{MaxSize: 2500}, "b d", "max_size"},
		"the living count":    {berth.LogLimits{MaxSize: 1}, "b", "max_size"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			for i, task := range []string{"a", "b", "c", "d"} {
				w, err := s.Append(task, 1, false)
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Copy(strings.NewReader(stamp(i)+" "+strings.Repeat("x", 1000)+"\n"), true); err != nil {
					t.Fatal(err)
				}
				w.Close()
				written := now.Add(-time.Duration(40-10*i) * days)
				if err := os.Chtimes(s.path(task, 1), written, written); err != nil {
					t.Fatal(err)
				}
			}
			ended := func(_ context.Context, task string) (time.Time, bool, error) { return time.Time{}, task != "b", nil }
			// c ended long after it last wrote.
			if name == "by age" {
				was := ended
				ended = func(ctx context.Context, task string) (time.Time, bool, error) {
					if task == "c" {
						return now.Add(-26 * days), true, nil
					}
					return was(ctx, task)
				}
				written := now.Add(-30 * days)
				if err := os.Chtimes(s.path("c", 1), written, written); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Sweep(t.Context(), tt.limits, ended, now); err != nil {
				t.Fatal(err)
			}
			if s.Swept().IsZero() {
				t.Error("it isn't noted")
			}
			var left []string
			for _, task := range []string{"a", "b", "c", "d"} {
				data, gap := "", ""
				for chunk, err := range s.Read(t.Context(), task, 1, berth.LogQuery{Follow: true}, func() bool { return true }) {
					if err != nil {
						t.Fatal(err)
					}
					data, gap = data+string(chunk.Data), gap+chunk.Gap
				}
				if data != "" {
					left = append(left, task)
				}
				if (data == "") != (gap != "") || gap != "" && (!strings.Contains(gap, tt.why) || !strings.Contains(gap, "removed at 2026-03-01T00:00:00Z")) {
					t.Errorf("%s: %d bytes, %q", task, len(data), gap)
				}
			}
			if got := fmt.Sprint(left); got != "["+tt.left+"]" {
				t.Errorf("left are %s, want %s", got, tt.left)
			}
		})
	}
}
