package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/datafs"
	"github.com/berth-run/berth/internal/engine"
)

const (
	// dataName is what people see of the task.
	dataName = "data"
	// dataIdle is how long a task that serves a shared filesystem stays when
	// nobody asks for anything.
	dataIdle = time.Minute
	// dataTimeout ends one however busy it is: nothing stays for ever.
	dataTimeout = 24 * time.Hour
	// dataPatience is how long something may keep one from starting before that
	// is told, and dataRetried how long what nodes try again, no sooner than after
	// ten seconds.
	dataPatience = 10 * time.Second
	dataRetried  = 30 * time.Second
	// dataAnswer bounds how long one that runs may take to answer.
	dataAnswer = 15 * time.Second
)

// data is how the Host reaches shared filesystems: by a task on each
// infrastructure, which serves what is mounted there as long as it is used. It
// is a task like others, so that what keeps it from starting is explained, and
// what a crash leaves behind is cleaned up, as for any.
type data struct {
	mu      sync.Mutex
	servers map[string]*dataServer // by infrastructure
}

// dataServer is the task that serves one shared filesystem.
type dataServer struct {
	starting chan struct{} // holds one: who looks for it, or starts it

	mu     sync.Mutex
	task   string // its id; empty: it isn't known whether there is one
	key    string // what it serves
	client *datafs.Client
	seen   time.Time // when it last answered
}

func (d *data) server(infrastructure string) *dataServer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.servers == nil {
		d.servers = map[string]*dataServer{}
	}
	s := d.servers[infrastructure]
	if s == nil {
		s = &dataServer{starting: make(chan struct{}, 1)}
		d.servers[infrastructure] = s
	}
	return s
}

// close lets go of connections. The tasks end by themselves.
func (d *data) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.servers {
		s.forget("")
	}
}

// forget drops what is known of a task, or of any.
func (s *dataServer) forget(task string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if task == "" || s.task == task {
		if s.client != nil {
			s.client.Close()
		}
		s.task, s.client = "", nil
	}
}

// serving returns a client of the task that serves an infrastructure's shared
// filesystem, which is started where there is none.
func (h *Host) serving(ctx context.Context, entry berth.InfrastructureConfig) (*datafs.Client, string, error) {
	s := h.data.server(entry.Name)
	select {
	case s.starting <- struct{}{}:
		defer func() { <-s.starting }()
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	key := h.dfsKey(&entry)
	s.mu.Lock()
	client, id, fresh := s.client, s.task, time.Since(s.seen) < time.Second
	same := s.key == key
	s.mu.Unlock()
	if client != nil && same {
		if fresh {
			return client, id, nil
		}
		ping, cancel := context.WithTimeout(ctx, dataAnswer)
		err := client.Ping(ping)
		cancel()
		if err == nil {
			s.answered()
			return client, id, nil
		}
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
	}
	s.forget("")
	if err := h.start(ctx, entry.Name); err != nil {
		return nil, "", err
	}
	for try := 0; ; try++ {
		task, err := h.dataTask(ctx, &entry, key)
		if err != nil {
			return nil, "", err
		}
		client, err := h.reach(ctx, &entry, task)
		if err == nil {
			s.mu.Lock()
			s.task, s.key, s.client, s.seen = task.ID, key, client, time.Now()
			s.mu.Unlock()
			return client, task.ID, nil
		}
		if !errors.Is(err, errDataEnded) {
			return nil, "", err
		}
		if try == 2 {
			return nil, "", berth.Errorf(berth.CodeUnavailable, "the pods that reach the shared filesystem of %s end before they serve (berth task explain %s): somebody cancels or deletes them", entry.Name, task.ID)
		}
	}
}

func (s *dataServer) answered() {
	s.mu.Lock()
	s.seen = time.Now()
	s.mu.Unlock()
}

// dfsKey tells shared filesystems, and ways to mount them, apart.
func (h *Host) dfsKey(entry *berth.InfrastructureConfig) string {
	text, err := json.Marshal([]any{entry.DFS.URL.Reveal(), entry.DFS})
	if err != nil {
		return "" // strings and truth values always can be
	}
	return h.agents.keys.DFSKey(string(text))
}

// dataTask returns the task that serves a shared filesystem, or will when it
// runs; it submits one where there is none that lives.
func (h *Host) dataTask(ctx context.Context, entry *berth.InfrastructureConfig, key string) (berth.Task, error) {
	var none berth.Task
	h.engine.Settle(ctx, entry.Name) // one that ended while nobody looked doesn't live
	page, err := h.store.Tasks(ctx, berth.TaskQuery{
		States: []berth.TaskState{berth.StateQueued, berth.StateLaunching, berth.StateRunning}, Infrastructure: entry.Name, Name: dataName, Labels: map[string]string{berth.LabelData: key},
	}, berth.Caller{Name: h.owner, Role: berth.RoleAdmin})
	if err != nil {
		return none, err
	}
	for _, task := range page.Tasks {
		if task.Spec.Data != nil && task.CancelledAt == nil {
			return task, nil
		}
	}
	if entry.AgentImage == "" && entry.Registry == "" {
		return none, berth.Errorf(berth.CodeInvalid, "infrastructure %s: its shared filesystem is reached by a pod with Berth's agent, whose image its nodes have to get from somewhere: set registry: (Berth puts it there), or load it with berth package load berth/let and set agent_image: to what that prints", entry.Name)
	}
	image, err := h.packages.agentImage(ctx, *entry)
	if err != nil {
		return none, err
	}
	spec := completed(&berth.TaskSpec{
		Name: dataName, Image: image, User: entry.DFS.User, Labels: map[string]string{berth.LabelData: key}, Timeout: dataTimeout,
		Data: &berth.DataServer{Seed: xid.New().String()},
	}, entry)
	return h.engine.Submit(ctx, h.owner, shareOf(entry, h.owner, spec.Labels), berth.Submission{Spec: spec})
}

// errDataEnded says that a task that was to serve has ended.
var errDataEnded = errors.New("the task has ended")

// reach waits until a task serves, and returns a client of it. What keeps it
// from that is the error; the task goes on trying.
func (h *Host) reach(ctx context.Context, entry *berth.InfrastructureConfig, task berth.Task) (*datafs.Client, error) {
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	states := make(chan berth.Task)
	failed := make(chan error, 1)
	go func() {
		for t, err := range h.engine.Watch(watch, task.ID) {
			if err != nil {
				failed <- err
				return
			}
			select {
			case states <- t:
			case <-watch.Done():
				return
			}
		}
	}()
	var stuck <-chan time.Time
	for task.State != berth.StateRunning {
		select {
		case task = <-states:
		case err := <-failed:
			return nil, err
		case <-stuck:
			return nil, dataStuck(entry, &task)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case task.State == berth.StateFailed:
			return nil, dataFailed(entry, &task)
		case task.State.Terminal():
			return nil, errDataEnded // cancelled or deleted by somebody, or it was idle
		case task.Diagnosis == nil && task.State != berth.StateQueued:
			stuck = nil
		case stuck == nil && task.Diagnosis != nil && (mayPass(task.Diagnosis) || task.Diagnosis.Cause == berth.CauseImageUnauthorized):
			stuck = time.After(dataRetried)
		case stuck == nil:
			stuck = time.After(dataPatience)
		}
	}
	if task.Pod == nil {
		return nil, errDataEnded
	}
	pod := *task.Pod
	client := datafs.NewClient(func(ctx context.Context) (net.Conn, error) {
		return h.engine.Forward(ctx, entry.Name, pod, datafs.Port)
	}, h.agents.keys.DataToken(task.Spec.Data.Seed))
	// It was started, and will listen in a moment.
	var err error
	for began, wait := time.Now(), 5*time.Millisecond; time.Since(began) < dataAnswer; wait = min(2*wait, 500*time.Millisecond) {
		ping, done := context.WithTimeout(ctx, dataAnswer)
		err = client.Ping(ping)
		done()
		if !errors.Is(err, datafs.ErrAway) || ctx.Err() != nil {
			break
		}
		select {
		case task = <-states:
		case <-time.After(wait):
		}
		if task.State.Terminal() {
			err = errDataEnded
			break
		}
	}
	if err == nil {
		return client, nil
	}
	client.Close()
	return nil, dataUnreached(entry, &task, err)
}

func dataError(code berth.ErrorCode, d *berth.Diagnosis, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if d != nil {
		message += fmt.Sprintf(": %s: %s", d.Cause, d.Summary)
		if d.Remedy.Text != "" {
			message += fmt.Sprintf(" What to do (%s): %s", d.Remedy.By, d.Remedy.Text)
		}
	}
	return &berth.Error{Code: code, Message: message, Diagnosis: d}
}

func dataStuck(entry *berth.InfrastructureConfig, task *berth.Task) error {
	if task.Diagnosis == nil && task.Reason != nil {
		return dataError(berth.CodeUnavailable, nil, "the pod that reaches the shared filesystem of %s does not start (task %s, which goes on waiting): it %s", entry.Name, task.ID, *task.Reason)
	}
	return dataError(berth.CodeUnavailable, task.Diagnosis, "the pod that reaches the shared filesystem of %s does not start (task %s, which goes on trying)", entry.Name, task.ID)
}

func dataFailed(entry *berth.InfrastructureConfig, task *berth.Task) error {
	return dataError(berth.CodeUnavailable, task.Diagnosis, "the pod that reaches the shared filesystem of %s failed (berth task explain %s)", entry.Name, task.ID)
}

func dataUnreached(entry *berth.InfrastructureConfig, task *berth.Task, err error) error {
	var told *berth.Error
	if errors.Is(err, errDataEnded) || errors.As(err, &told) || errors.Is(err, context.Canceled) {
		return err
	}
	var refusal *engine.Refusal
	if errors.As(err, &refusal) && refusal.Diagnosis != nil {
		code := berth.CodeUnavailable
		if refusal.Kind == engine.RefusedForbidden {
			code = berth.CodeForbidden
		}
		return dataError(code, refusal.Diagnosis, "the pod that reaches the shared filesystem of %s runs (task %s), and can't be reached", entry.Name, task.ID)
	}
	return dataError(berth.CodeUnavailable, nil, "the pod that reaches the shared filesystem of %s runs (task %s), and can't be reached: %s", entry.Name, task.ID, err)
}

// away makes an error of a server that went away one that says so.
func away(entry *berth.InfrastructureConfig, err error) error {
	if errors.Is(err, datafs.ErrAway) {
		return berth.Errorf(berth.CodeUnavailable, "the pod that reaches the shared filesystem of %s went away in the middle: try again (%w)", entry.Name, err)
	}
	return err
}
