package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

var (
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	pod    = "berth-d3k1-2"
	site   = berth.Infrastructure{Name: "site-a", Address: "https://cluster.example:6443", Namespace: "physics"}
	events = []berth.Event{
		{Type: berth.EventQueued, At: noon, Message: "on site-a"},
		{Type: berth.EventAdmitted, Attempt: 1, At: noon.Add(4 * time.Millisecond)},
		{Type: berth.EventFailed, Attempt: 1, At: noon.Add(4 * time.Second), Message: "the node was lost"},
		{Type: berth.EventRetrying, Attempt: 1, At: noon.Add(4 * time.Second), Message: "attempt 1 ended: NodeLost; the next begins in 1s"},
		{Type: berth.EventAdmitted, Attempt: 2, At: noon.Add(5 * time.Second)},
		{Type: berth.EventDiagnosed, Attempt: 2, At: noon.Add(2*time.Hour + 5*time.Second), Message: "InsufficientGPU: No node has the 2 nvidia.com/gpu that the task asks for: 0 of 3 nodes fit (3 Insufficient nvidia.com/gpu)."},
	}
)

func stalled() berth.Task {
	return berth.Task{
		ID: "d3k1", State: berth.StateLaunching, Infrastructure: "site-a", Image: "registry.example/tool:1", Attempt: 2, Owner: "ann", Pod: &pod, CreatedAt: noon,
		Spec: berth.TaskSpec{Image: "registry.example/tool:1", GPU: 2, Memory: "4Gi", Args: []string{"--password", "hunter2"}, Env: []berth.EnvVar{{Name: "TOKEN", Value: "s3cret"}}},
		Diagnosis: &berth.Diagnosis{
			Cause: berth.CauseInsufficientGPU, Since: noon.Add(5 * time.Second),
			Summary:  "No node has the 2 nvidia.com/gpu that the task asks for: 0 of 3 nodes fit (3 Insufficient nvidia.com/gpu).",
			Remedy:   berth.Remedy{Text: "have GPUs added to the cluster, or their device plugin looked at", By: berth.RemedyByEngineer},
			Evidence: []berth.Evidence{{Source: "pod condition PodScheduled", Text: "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}},
		},
	}
}

var update = flag.Bool("update", false, "write the files of testdata")

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestTheMessageToTheEngineer(t *testing.T) {
	task := stalled()
	message := engineerMessage(&task, site)
	golden(t, "message.txt", message)
	for _, secret := range []string{"hunter2", "s3cret"} {
		if strings.Contains(message, secret) {
			t.Errorf("it tells %s", secret)
		}
	}
}

func TestAnExplanationTellsAttemptsApart(t *testing.T) {
	task := stalled()
	message := engineerMessage(&task, site)
	var out strings.Builder
	explain(&out, task, explanation{ID: task.ID, State: task.State, Diagnosis: task.Diagnosis, Message: &message, Timeline: events})
	golden(t, "explanation.txt", out.String())
	for line := range strings.Lines(out.String()) {
		if len([]rune(line)) > explainWidth+1 {
			t.Errorf("wider than %d columns: %s", explainWidth, line)
		}
	}
}

func TestWhatIsSaidOfATaskThatNothingIsWrongWith(t *testing.T) {
	at := func(d time.Duration) *time.Time { when := noon.Add(d); return &when }
	full := "waits to be let through: 500 of at most 500 tasks run on site-a (limits: max_pods), 20 queued"
	for name, test := range map[string]struct {
		task   berth.Task
		events []berth.Event
		want   []string
	}{
		"it waits behind others":   {berth.Task{State: berth.StateQueued, Reason: &full}, events[:1], []string{"500 of at most 500 tasks", "20 queued", "max_pods", "first to come"}},
		"it waits for its attempt": {berth.Task{State: berth.StateQueued}, events[:4], []string{"tried again", "NodeLost", "in 1s"}},
		"its pod comes up":         {berth.Task{State: berth.StateLaunching}, events[:2], []string{"coming up"}},
		"it runs":                  {berth.Task{State: berth.StateRunning, StartedAt: at(0)}, events, []string{"runs", "1m30s"}},
		"it succeeded":             {berth.Task{State: berth.StateSucceeded, StartedAt: at(0), FinishedAt: at(2500 * time.Millisecond)}, events, []string{"exit code 0", "2.5s"}},
		"it was cancelled":         {berth.Task{State: berth.StateCancelled, CancelledAt: at(0)}, events, []string{"cancelled on 2026-03-01 12:00:00Z"}},
	} {
		got := undiagnosed(&test.task, test.events, noon.Add(90*time.Second))
		for _, word := range test.want {
			if !strings.Contains(got, word) {
				t.Errorf("%s: it does not say %q: %s", name, word, got)
			}
		}
	}
}

func TestAListOfTasksFitsANarrowTerminal(t *testing.T) {
	waiting, ended := stalled(), stalled()
	waiting.CreatedAt, ended.CreatedAt = time.Now(), time.Now()
	ended.State, ended.ID = berth.StateFailed, "d3k2"
	tasks := []berth.Task{waiting, ended}
	at := func(width int) []string {
		var out strings.Builder
		taskTable(&out, tasks, func() int { return width })
		return strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	}
	want := []string{
		"ID    NAME  STATE      ON      IMAGE   EXIT  AGE",
		"d3k1  -     launching  site-a  tool:1  -     0s",
		"    InsufficientGPU: No node has the 2 nvidia.com/gpu that the task asks for: 0",
		"    of 3 nodes fit (3 Insufficient nvidia.com/gpu).",
		"d3k2  -     failed     site-a  tool:1  -     0s",
		"    InsufficientGPU",
	}
	if diff := cmp.Diff(want, at(80)); diff != "" {
		t.Error(diff)
	}
	if lines := at(240); len(lines) != 3 || !strings.HasSuffix(lines[1], "nvidia.com/gpu).") {
		t.Errorf("on a wide terminal:\n%s", strings.Join(lines, "\n"))
	}
}

func TestTheLiveLineHasTheCauseAndTheSentence(t *testing.T) {
	task := stalled()
	if got := standing(task); !strings.HasPrefix(got, "launching: InsufficientGPU: No node has the 2 nvidia.com/gpu") {
		t.Error(got)
	}
	task.Diagnosis = nil
	if got := standing(task); got != "task d3k1 launching (attempt 2) on site-a" {
		t.Errorf("when it has cleared: %s", got)
	}
}

func TestDurationsAreReadable(t *testing.T) {
	for d, want := range map[time.Duration]string{
		7400 * time.Microsecond: "7ms", 1234 * time.Millisecond: "1.2s", 190 * time.Second: "3m10s", 2*time.Hour + 5*time.Minute: "2h5m", -time.Second: "0s",
	} {
		if got := took(d); got != want {
			t.Errorf("took(%s) = %s, want %s", d, got, want)
		}
	}
}
