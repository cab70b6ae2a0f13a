//go:build crashpoints

package crash

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOnlyTheTimeOfDayJumps(t *testing.T) {
	clock = filepath.Join(t.TempDir(), "clock")
	before := Now()
	for text, offset := range map[string]time.Duration{"3h": 3 * time.Hour, "-20m\n": -20 * time.Minute} {
		if err := os.WriteFile(clock, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		after := Now()
		if passed := after.Sub(before); passed < 0 || passed > time.Minute {
			t.Errorf("%s: %s passed", text, passed)
		}
		if jumped := after.Round(0).Sub(before.Round(0)); (jumped - offset).Abs() > time.Minute {
			t.Errorf("%s: the time of day jumped by %s", text, jumped)
		}
		if stored := after.UTC().Round(0); (stored.Sub(time.Now().Round(0)) - offset).Abs() > time.Minute {
			t.Errorf("%s: what is stored is %s", text, stored)
		}
	}
}
