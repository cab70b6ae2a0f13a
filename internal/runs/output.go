package runs

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/berth-run/berth"
)

// maxOutput is how much of a plain task's output is its value, at most: the end.
const maxOutput = 512 << 10

// plainValue is the value of a plain task.
type plainValue struct {
	Output     string     `json:"output"`
	Truncated  bool       `json:"truncated"` // the beginning of the output is not in it
	Incomplete bool       `json:"incomplete"`
	ExitCode   *int       `json:"exit_code"`
	StartedAt  *time.Time `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at"`
	Task       string     `json:"task"`
}

// output is the value of a plain task that has ended well.
func (h *host) output(ctx context.Context, task *berth.Task) (json.RawMessage, error) {
	value := plainValue{ExitCode: task.ExitCode, StartedAt: task.StartedAt, FinishedAt: task.FinishedAt, Task: task.ID}
	for wait := pauses(ctx); ; {
		text, err := h.readOutput(ctx, task.ID, &value)
		if err == nil {
			value.Output = string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
			return json.Marshal(value)
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		if !wait() {
			return nil, context.Cause(ctx)
		}
	}
}

func (h *host) readOutput(ctx context.Context, id string, value *plainValue) ([]byte, error) {
	var text []byte
	value.Truncated, value.Incomplete = false, false
	for chunk, err := range h.x.tasks.TaskLogs(ctx, id, berth.LogQuery{Follow: true}) {
		if err != nil {
			return nil, err
		}
		value.Incomplete = value.Incomplete || chunk.Gap != ""
		if text = append(text, chunk.Data...); len(text) > 2*maxOutput {
			text, value.Truncated = cutBegin(text), true
		}
	}
	if len(text) > maxOutput {
		text, value.Truncated = cutBegin(text), true
	}
	return text, nil
}

// cutBegin keeps the end of a text, from the beginning of a line on.
func cutBegin(text []byte) []byte {
	rest := text[len(text)-maxOutput:]
	if at := bytes.IndexByte(rest, '\n'); at >= 0 && at < len(rest)-1 {
		rest = rest[at+1:]
	}
	return append([]byte(nil), rest...)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
