package cli

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// maxLogs is how many logs are shown at once.
const maxLogs = 50

// joinEvery is how often it is asked for tasks that have got a label.
const joinEvery = time.Second

// showLogs shows the logs of several tasks, each line behind its task.
func (a *app) showLogs(ctx context.Context, service berth.Service, ids []string, labels map[string]string, q berth.LogQuery) error {
	find := func() ([]berth.Task, error) { return labelled(ctx, service, labels) }
	if len(labels) == 0 {
		find = func() ([]berth.Task, error) { return named(ctx, service, ids) }
	}
	tasks, err := find()
	if err != nil {
		return err
	}
	if len(tasks) == 0 && !q.Follow {
		fmt.Fprintln(a.stderr, "berth: no task has that label")
		return nil
	}
	p := newPrefixes(a.stdout, tasks)
	if !q.Follow {
		if len(tasks) > maxLogs {
			return fmt.Errorf("more than %d tasks have that label: at most %[1]d logs are shown at once; name tasks by their ids, or give each group of them a label of its own", maxLogs)
		}
		return a.mergeLogs(ctx, service, tasks, q, p)
	}
	if len(labels) == 0 {
		find = nil
	}
	return a.followLogs(ctx, service, tasks, q, p, find)
}

// named returns tasks by their ids, each once.
func named(ctx context.Context, service berth.Service, ids []string) ([]berth.Task, error) {
	var tasks []berth.Task
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			continue
		}
		task, err := service.Task(ctx, id)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, task)
	}
	return tasks, nil
}

// labelled returns the newest tasks with labels, the oldest of them first: one
// more than may be shown, where there are so many.
func labelled(ctx context.Context, service berth.Service, labels map[string]string) ([]berth.Task, error) {
	page, err := service.Tasks(ctx, berth.TaskQuery{Labels: labels, Limit: maxLogs + 1})
	slices.Reverse(page.Tasks)
	return page.Tasks, err
}

// logLine is a line of a log, or a gap in it.
type logLine struct {
	at     time.Time
	stream berth.LogStream
	text   []byte
	gap    string
}

// logLines yields the lines of a log, each whole, with their times.
func logLines(ctx context.Context, service berth.Service, id string, q berth.LogQuery) iter.Seq2[logLine, error] {
	shown := q.Timestamps
	q.Timestamps = true
	return func(yield func(logLine, error) bool) {
		var last logLine
		give := func(text []byte, stream berth.LogStream) bool {
			l := logLine{at: last.at, stream: stream, text: text}
			if stamp, content, ok := bytes.Cut(text, []byte(" ")); ok {
				if at, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil {
					l.at = at
					if !shown {
						l.text = content
					}
				}
			}
			last = l
			return yield(l, nil)
		}
		var begun []byte // a line that comes in pieces
		var stream berth.LogStream
		for chunk, err := range service.TaskLogs(ctx, id, q) {
			if err != nil {
				yield(logLine{}, err)
				return
			}
			if len(begun) > 0 && (chunk.Gap != "" || chunk.Stream != stream) {
				if !give(begun, stream) {
					return
				}
				begun = nil
			}
			if chunk.Gap != "" {
				if !yield(logLine{at: last.at, gap: chunk.Gap}, nil) {
					return
				}
				continue
			}
			stream = chunk.Stream
			for text := range bytes.Lines(chunk.Data) {
				begun = append(begun, text...)
				if text[len(text)-1] == '\n' || len(begun) > maxPrefixed {
					if !give(begun, stream) {
						return
					}
					begun = nil
				}
			}
		}
		if len(begun) > 0 {
			give(begun, stream)
		}
	}
}

// maxPrefixed is how long a line may be and be shown as one behind its task.
const maxPrefixed = 4 << 20

// mergeLogs shows what is there of several logs, by the times of the lines.
func (a *app) mergeLogs(ctx context.Context, service berth.Service, tasks []berth.Task, q berth.LogQuery, p *prefixes) error {
	type head struct {
		task string
		line logLine
		next func() (logLine, error, bool)
	}
	var heads []*head
	for i := range tasks {
		next, stop := iter.Pull2(logLines(ctx, service, tasks[i].ID, q))
		defer stop()
		line, err, ok := next()
		if err != nil {
			return err
		}
		if ok {
			heads = append(heads, &head{tasks[i].ID, line, next})
		}
	}
	if len(heads) == 0 {
		fmt.Fprintln(a.stderr, "berth: none of these tasks has output that was asked for")
	}
	for len(heads) > 0 {
		first := 0
		for i, h := range heads {
			if h.line.at.Before(heads[first].line.at) {
				first = i
			}
		}
		h := heads[first]
		if err := a.writeLine(p, h.task, h.line); err != nil {
			return err
		}
		var err error
		var ok bool
		if h.line, err, ok = h.next(); err != nil {
			return err
		} else if !ok {
			heads = slices.Delete(heads, first, first+1)
		}
	}
	return nil
}

// followLogs shows several logs as their lines come, until all have ended. With
// find, tasks that it finds later are joined; where too many are followed at
// once they wait for others to end.
func (a *app) followLogs(ctx context.Context, service berth.Service, tasks []berth.Task, q berth.LogQuery, p *prefixes, find func() ([]berth.Task, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // of p and of what is written
	ended := make(chan error)
	known := map[string]bool{}
	open := 0
	waits := false
	join := func(tasks []berth.Task) {
		for i := range tasks {
			task := &tasks[i]
			if known[task.ID] {
				continue
			}
			if open == maxLogs {
				if !waits {
					fmt.Fprintf(a.stderr, "berth: %d logs are followed, which is as many as are at once; others are shown when some of these have ended\n", maxLogs)
				}
				waits = true
				return
			}
			known[task.ID] = true
			open++
			mu.Lock()
			if p.names[task.ID] == "" {
				p.add(task)
			}
			mu.Unlock()
			go func() { ended <- a.followOne(ctx, service, task.ID, q, p, &mu) }()
		}
	}
	join(tasks)
	var again <-chan time.Time
	if find != nil {
		t := time.NewTicker(joinEvery)
		defer t.Stop()
		again = t.C
	}
	var failed error
	look := func() {
		if find == nil || failed != nil {
			return
		}
		tasks, err := find()
		if failed = err; err == nil {
			join(tasks)
		}
	}
	interrupted := ctx.Done()
	for open > 0 || find != nil && len(known) == 0 && failed == nil {
		select {
		case err := <-ended:
			open--
			if failed == nil {
				failed = err
			}
			if failed != nil {
				cancel()
			} else if open == 0 || waits {
				look() // the last ones, before it is over
			}
		case <-again:
			look()
		case <-interrupted: // the logs end by it
			interrupted, failed = nil, ctx.Err()
		}
	}
	return failed
}

// followOne shows one log of several.
func (a *app) followOne(ctx context.Context, service berth.Service, id string, q berth.LogQuery, p *prefixes, mu *sync.Mutex) error {
	for line, err := range logLines(ctx, service, id, q) {
		if err != nil {
			return err
		}
		mu.Lock()
		err = a.writeLine(p, id, line)
		mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// showArrayLogs shows the logs of an array's tasks, those of so many at once as
// are shown together, in the order of their indices.
func (a *app) showArrayLogs(ctx context.Context, service berth.Service, id string, q berth.LogQuery) error {
	array, err := service.Array(ctx, id)
	if err != nil {
		return err
	}
	if q.Follow && array.Size > maxLogs {
		return fmt.Errorf("array %s has %d tasks: at most %d logs are followed at once; name tasks by their ids, or leave out --follow", id, array.Size, maxLogs)
	}
	var tasks []berth.Task
	for query := (berth.TaskQuery{Array: id, Limit: 1000}); ; {
		page, err := service.Tasks(ctx, query)
		if err != nil {
			return err
		}
		for i := range page.Tasks {
			t := &page.Tasks[i]
			name := strconv.Itoa(t.Array.Index) // which tells more than the name that all have
			tasks = append(tasks, berth.Task{ID: t.ID, Name: &name, CreatedAt: t.CreatedAt, State: t.State, Attempt: t.Attempt})
		}
		if query.After = page.Next; query.After == "" {
			break
		}
	}
	slices.Reverse(tasks)
	p := newPrefixes(a.stdout, tasks)
	if q.Follow {
		return a.followLogs(ctx, service, tasks, q, p, nil)
	}
	for some := range slices.Chunk(tasks, maxLogs) {
		if err := a.mergeLogs(ctx, service, some, q, p); err != nil {
			return err
		}
	}
	return nil
}
