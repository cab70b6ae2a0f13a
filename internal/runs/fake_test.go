package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/berth-run/berth"
)

// cluster is Tasks of a test: what a task's image is, is done with it.
type cluster struct {
	mu      sync.Mutex
	do      map[string]func(ctx context.Context, args []string) (output string, code int)
	tasks   map[string]*task // by key
	byID    map[string]*task
	refused map[string]error // by image
	away    int              // submissions that are answered by nobody
	begun   []string         // what was done, once each

	functions map[string]func(args map[string]json.RawMessage) string // and what they give
}

type task struct {
	mu        sync.Mutex
	it        berth.Task
	output    string
	ended     chan struct{}
	cancel    context.CancelFunc
	cancelled bool
}

func newCluster() *cluster {
	return &cluster{tasks: map[string]*task{}, byID: map[string]*task{}, refused: map[string]error{}, do: map[string]func(context.Context, []string) (string, int){
		"echo":  func(_ context.Context, args []string) (string, int) { return strings.Join(args, " ") + "\n", 0 },
		"fail":  func(context.Context, []string) (string, int) { return "oh\n", 3 },
		"never": func(ctx context.Context, _ []string) (string, int) { <-ctx.Done(); return "", 143 },
	}}
}

func (c *cluster) SubmitTask(_ context.Context, s berth.Submission) (berth.Task, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away > 0 {
		c.away--
		return berth.Task{}, berth.Errorf(berth.CodeUnavailable, "nobody is there")
	}
	if err := c.refused[s.Spec.Image]; err != nil {
		return berth.Task{}, err
	}
	if t := c.tasks[s.Key]; t != nil {
		return t.now(), nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{it: berth.Task{ID: fmt.Sprintf("t%d", len(c.tasks)+1), State: berth.StateRunning, Infrastructure: s.Spec.Infrastructure, Spec: s.Spec}, ended: make(chan struct{}), cancel: cancel}
	c.tasks[s.Key], c.byID[t.it.ID] = t, t
	if call := s.Spec.Call; call != nil {
		arguments, _ := json.Marshal(call.Arguments)
		c.begun = append(c.begun, call.Function+string(arguments)+" on "+s.Spec.Infrastructure)
		t.it.State, t.it.Result = berth.StateSucceeded, json.RawMessage(c.functions[call.Function](call.Arguments))
		close(t.ended)
		return t.now(), nil
	}
	c.begun = append(c.begun, strings.TrimSpace(s.Spec.Image+" "+strings.Join(s.Spec.Args, " ")))
	do := c.do[s.Spec.Image]
	go func() {
		output, code := do(ctx, s.Spec.Args)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.output, t.it.ExitCode, t.it.State = output, &code, berth.StateSucceeded
		if code != 0 {
			t.it.State, t.it.Diagnosis = berth.StateFailed, &berth.Diagnosis{Cause: berth.CauseExitedNonZero, Summary: fmt.Sprintf("It ended with exit code %d.", code)}
		}
		if t.cancelled {
			t.it.State = berth.StateCancelled
		}
		close(t.ended)
	}()
	return t.now(), nil
}

func (t *task) now() berth.Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.it
}

func (c *cluster) of(id string) *task {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c *cluster) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return func(yield func(berth.Task, error) bool) {
		t := c.of(id)
		if !yield(t.now(), nil) {
			return
		}
		select {
		case <-t.ended:
			yield(t.now(), nil)
		case <-ctx.Done():
			yield(berth.Task{}, ctx.Err())
		}
	}
}

func (c *cluster) TaskLogs(_ context.Context, id string, _ berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return func(yield func(berth.LogChunk, error) bool) {
		yield(berth.LogChunk{Data: []byte(c.of(id).output)}, nil)
	}
}

func (c *cluster) Tasks(_ context.Context, q berth.TaskQuery) (berth.TaskPage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var page berth.TaskPage
	for _, t := range c.byID {
		if now := t.now(); now.Spec.Labels[berth.LabelRun] == q.Labels[berth.LabelRun] && slices.Contains(q.States, now.State) {
			page.Tasks = append(page.Tasks, now)
		}
	}
	return page, nil
}

func (c *cluster) CancelTask(_ context.Context, id string) (berth.Task, error) {
	t := c.of(id)
	t.mu.Lock()
	t.cancelled = true
	t.mu.Unlock()
	t.cancel()
	return t.now(), nil
}

// done is what was done so far, in the order of its text.
func (c *cluster) done() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.begun))
}

// noLease is for a store that one process has for itself.
func noLease(string) (berth.Lease, error) { return berth.Lease{}, nil }

// memory is a Store of a test, which loses nothing when an Executor ends.
type memory struct {
	mu      sync.Mutex
	records map[string]berth.RunRecord
	calls   map[string]map[string]berth.RunCall
	cache   map[string]berth.CachedCall // by owner and digest
	failing int                         // commits that fail
	commits int
}

func newMemory() *memory {
	return &memory{records: map[string]berth.RunRecord{}, calls: map[string]map[string]berth.RunCall{}, cache: map[string]berth.CachedCall{}}
}

func (m *memory) CachedCall(_ context.Context, owner, digest string) (berth.CachedCall, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cache[owner+" "+digest]
	if !ok {
		return c, berth.NoSuchCachedCall(digest)
	}
	return c, nil
}

func (m *memory) PutCachedCall(_ context.Context, c *berth.CachedCall) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache[c.Owner+" "+c.Digest] = *c
	return nil
}

func (m *memory) DropCachedCall(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.cache, func(_ string, c berth.CachedCall) bool { return c.ID == id })
	return nil
}

func (m *memory) Run(_ context.Context, id string) (berth.Run, error) {
	r, err := m.RunRecord(context.Background(), id)
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Run.Calls = map[berth.CallState]int{}
	for _, c := range m.calls[id] {
		r.Run.Calls[c.State]++
	}
	return r.Run, err
}

func (m *memory) RunRecord(_ context.Context, id string) (berth.RunRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[id]
	if !ok {
		return r, berth.NoSuchRun(id)
	}
	return r, nil
}

func (m *memory) CommitRun(_ context.Context, _ berth.Lease, id string, changed *berth.Run, calls []berth.RunCall) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits++
	if m.failing > 0 {
		m.failing--
		return berth.Errorf(berth.CodeExhausted, "the disk is full")
	}
	if changed != nil {
		r := m.records[id]
		r.Run = *changed
		m.records[id] = r
	}
	for _, c := range calls {
		if m.calls[id] == nil {
			m.calls[id] = map[string]berth.RunCall{}
		}
		m.calls[id][c.Key] = c
	}
	return nil
}

func (m *memory) LiveRuns(context.Context, string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id, r := range m.records {
		if !r.Run.State.Terminal() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (m *memory) RunCalls(_ context.Context, id string, after int64, limit int) ([]berth.RunCall, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []berth.RunCall
	for _, c := range m.calls[id] {
		if c.Seq > after {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b berth.RunCall) int { return int(a.Seq - b.Seq) })
	return all[:min(len(all), limit)], nil
}
