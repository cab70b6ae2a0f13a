// Package control wires Berth together: store, logs, engine, drivers and
// infra.yml make a Host, which is a berth.Service; and a Member is a Service
// that is the Host of a data directory, or the guest of whoever is.
package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"os/user"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/compute"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/logs"
	"github.com/berth-run/berth/internal/runs"
	"github.com/berth-run/berth/internal/schedules"
	"github.com/berth-run/berth/internal/store"
)

// Config says which data directory and which infra.yml belong together.
type Config struct {
	InfraPath string // absolute
	DataDir   string // absolute
	Version   string
	Log       *slog.Logger

	Database berth.Secret // postgres:// address of a store that servers share; empty: a file in DataDir
	Storage  string       // where logs and packages are, for all servers: a directory, or s3://...; empty: where they were, DataDir at first
	Self     berth.Server // how other servers of the database reach this one

	RegistryHosts []string // HOST:PORT under which nodes reach our own registry, if any
	CallbackCA    string   // PEM that agents trust callback_to by; empty: their system's
}

// Host is the Service on a data directory. There is one at a time: it holds
// the directory's lock.
type Host struct {
	config    Config
	store     *store.Store
	storage   *storage
	logs      *logs.Store
	engine    *engine.Engine
	fleet     *fleet // the servers that share the store; nil: this one has it for itself
	runs      *runs.Executor
	schedules *schedules.Scheduler
	clusters  *compute.Keeper
	offers    *offers
	dialled   dialled
	agents    *agents
	packages  *packages
	owner     string
	cancel    context.CancelFunc

	data     data
	sessions sessions
	adding   sync.Mutex   // one infrastructure that is sent at a time
	logBytes atomic.Int64 // that were read from clusters
	counts   counts

	dashboards atomic.Pointer[string] // where those of clusters are shown, if anywhere

	sweepNow chan struct{} // the limits of logs may have changed
	sweeping sync.WaitGroup

	mu      sync.Mutex
	file    *config.File // nil while infra.yml was never read well
	fileErr error        // why it can't be read now
	started map[string]running
	stays   bool // it is to know how every infrastructure stands
}

var _ berth.Service = (*Host)(nil)

// newHost opens a data directory whose lock the caller holds, and takes up
// the tasks that live in it.
func newHost(ctx context.Context, c Config) (*Host, error) {
	st, err := openStore(ctx, c)
	if err != nil {
		return nil, err
	}
	place, err := openStorage(ctx, c)
	if err != nil {
		st.Close()
		return nil, err
	}
	logStore, err := place.openLogs(c, st.Instance())
	if err != nil {
		place.close()
		st.Close()
		return nil, err
	}
	h := &Host{config: c, store: st, storage: place, logs: logStore, started: map[string]running{}, owner: systemUser(), sweepNow: make(chan struct{}, 1), packages: newPackages(place.openRegistry, c.RegistryHosts, c.Log)}
	h.agents = &agents{host: h, keys: st.AgentKey()}
	if c.Database != "" {
		h.fleet = newFleet(h)
	}
	h.engine = engine.New(h.engineStore(), logKeeper{logStore, &h.logBytes}, texts{}, h.agents, c.Log)
	h.runs, h.schedules = runs.New(st, h.service(), workflowFiles{h}, h.leaseOf, c.Log), schedules.New(st, h.service(), h.leaseOf, c.Log)
	h.offers = newOffers()
	h.clusters = compute.New(st, clusterTasks{h}, clusterEngines, h.leaseOf, c.Log)
	h.file, h.fileErr = config.Load(c.InfraPath)
	if h.file != nil {
		for _, warning := range h.file.Warnings {
			c.Log.Warn(warning)
		}
	}
	var watchCtx context.Context
	watchCtx, h.cancel = context.WithCancel(context.Background())
	go config.Watch(watchCtx, c.InfraPath, h.reload)
	h.engine.Balance(h.balance)
	h.sweeping.Go(func() { h.sweepLogs(watchCtx) })
	if h.fleet != nil {
		if err := h.fleet.join(ctx); err != nil { // which starts what is this server's
			h.Close()
			return nil, err
		}
		return h, nil
	}
	live, err := st.LiveInfrastructures(ctx)
	if err != nil {
		h.Close()
		return nil, err
	}
	for _, name := range live {
		if err := h.start(ctx, name); err != nil {
			c.Log.Warn("tasks of an infrastructure can't go on", "infrastructure", name, "error", err)
		}
	}
	return h, nil
}

func systemUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid-%d", os.Getuid())
}

// Close stops the engine and closes the store. Tasks go on in their clusters.
func (h *Host) Close() error {
	h.cancel()
	h.sweeping.Wait()
	h.clusters.Close()
	h.schedules.Close()
	h.runs.Close()
	if h.fleet != nil {
		h.fleet.leave()
	}
	h.data.close()
	h.engine.Close()
	h.packages.close()
	err := h.logs.Close()
	h.storage.close()
	return errors.Join(err, h.store.Close())
}

func (h *Host) Info(ctx context.Context) (berth.Info, error) {
	info := berth.Info{Version: h.config.Version, Instance: h.store.Instance(), DataDir: h.config.DataDir, PID: os.Getpid()}
	if !h.caller(ctx).MayAdminister() {
		info.DataDir, info.PID = "", 0 // of the server's machine, which is not theirs
	}
	return info, nil
}

func (h *Host) SubmitTask(ctx context.Context, s berth.Submission) (berth.Task, error) {
	caller := h.caller(ctx)
	entry, among, err := h.accept(ctx, caller, &s.Spec, s.Spec.Validate)
	if err != nil {
		return berth.Task{}, err
	}
	return h.engine.Submit(ctx, caller.Name, shareOf(&entry, caller.Name, s.Spec.Labels), berth.Submission{Spec: s.Spec, Key: ownKey(caller, s.Key), NoPreflight: s.NoPreflight, Among: among})
}

// accept chooses the infrastructure of what is submitted, completes it with what
// that says, looks whether it could run there, and sees to it that the
// infrastructure is reconciled. See placed.
func (h *Host) accept(ctx context.Context, caller berth.Caller, spec *berth.TaskSpec, validate func() error) (berth.InfrastructureConfig, []string, error) {
	err := validate()
	if err != nil {
		return berth.InfrastructureConfig{}, nil, err
	}
	entry, among, err := h.placed(ctx, caller, spec)
	if err == nil {
		*spec = completed(spec, &entry)
		err = validate()
	}
	if err == nil && spec.Call != nil {
		if err = h.resolveCall(ctx, entry, spec); err == nil {
			err = secretsOf(caller, spec.Call)
		}
	}
	if err == nil && len(spec.Steps) > 0 && entry.Kind == "kube" {
		_, err = h.packages.agentImage(ctx, entry) // nothing is stored that could not run
	}
	if err == nil {
		err = h.start(ctx, entry.Name)
	}
	return entry, among, err
}

// ownKey makes an idempotency key the caller's own: names have no slash, so no
// owner's key is another's.
func ownKey(caller berth.Caller, key string) string {
	if key == "" {
		return ""
	}
	return caller.Name + "/" + key
}

// settleLimit bounds how long a reading verb waits for a host that has just
// begun to see how things stand.
const settleLimit = 3 * time.Second

// settle waits until the infrastructures with live tasks were looked at once.
func (h *Host) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for _, name := range h.engine.Infrastructures() {
		h.engine.Settle(ctx, name)
	}
}

func (h *Host) Task(ctx context.Context, id string) (berth.Task, error) {
	h.settle(ctx)
	return h.visible(ctx, id)
}

func (h *Host) Tasks(ctx context.Context, q berth.TaskQuery) (berth.TaskPage, error) {
	h.settle(ctx)
	page, err := h.store.Tasks(ctx, q, h.caller(ctx))
	for i := range page.Tasks {
		page.Tasks[i] = h.engine.Present(page.Tasks[i])
	}
	return page, err
}

func (h *Host) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return func(yield func(berth.Task, error) bool) {
		if _, err := h.visible(ctx, id); err != nil {
			yield(berth.Task{}, err)
			return
		}
		h.engine.Watch(ctx, id)(yield)
	}
}

func (h *Host) TaskEvents(ctx context.Context, id string, after int64, follow bool) iter.Seq2[berth.Event, error] {
	return func(yield func(berth.Event, error) bool) {
		h.settle(ctx)
		if _, err := h.visible(ctx, id); err != nil {
			yield(berth.Event{}, err)
			return
		}
		// What is yielded up to a state of the task is read after that state.
		for task, err := range h.engine.Watch(ctx, id) {
			if err != nil {
				yield(berth.Event{}, err)
				return
			}
			for {
				const page = 500
				events, err := h.store.Events(ctx, id, after, page)
				if err != nil {
					yield(berth.Event{}, err)
					return
				}
				for _, e := range events {
					after = e.Seq
					if !yield(e, nil) {
						return
					}
				}
				if len(events) < page {
					break
				}
			}
			if !follow || task.State.Terminal() {
				return
			}
		}
	}
}

func (h *Host) TaskLogs(ctx context.Context, id string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return func(yield func(berth.LogChunk, error) bool) {
		if !q.Follow {
			h.settle(ctx)
		}
		if _, err := h.visible(ctx, id); err != nil {
			yield(berth.LogChunk{}, err)
			return
		}
		of, err := h.engine.Logs(ctx, id, q.Attempt, q.Follow)
		if err != nil {
			yield(berth.LogChunk{}, err)
			return
		}
		if of.Attempt == 0 {
			return // it ended before its first attempt
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			select {
			case <-h.engine.Ending():
				cancel(berth.Errorf(berth.CodeUnavailable, "%w", berth.ErrEnding))
			case <-ctx.Done():
			}
		}()
		offset := q.Offset
		for chunk, err := range h.logs.Read(ctx, id, of.Attempt, q, of.Done) {
			if errors.Is(err, context.Canceled) {
				err = context.Cause(ctx)
			}
			offset = chunk.Offset
			if !yield(chunk, err) || err != nil {
				return
			}
		}
		if !q.Follow && of.Behind {
			yield(berth.LogChunk{Attempt: of.Attempt, Offset: offset, Gap: "the end of the output could not be read yet; with -f it is waited for"}, nil)
		}
	}
}

func (h *Host) TaskMetrics(ctx context.Context, id string, q berth.MetricsQuery) (berth.TaskMetrics, error) {
	h.settle(ctx)
	if _, err := h.visible(ctx, id); err != nil {
		return berth.TaskMetrics{}, err
	}
	return h.engine.Metrics(ctx, id, q.Attempt)
}

func (h *Host) CancelTask(ctx context.Context, id string) (berth.Task, error) {
	task, err := h.visible(ctx, id)
	if err != nil {
		return task, err
	}
	if caller := h.caller(ctx); !caller.MayCancel(&task) {
		return berth.Task{}, needs(caller, berth.RoleWrite, "cancel tasks")
	}
	return h.engine.Cancel(ctx, id)
}

// newDirectory makes the data directory for one user alone.
func newDirectory(path string) error {
	if err := onThisMachine(path); err != nil {
		return err
	}
	err := os.MkdirAll(path, 0o700)
	if err == nil {
		return nil
	}
	hint := "name another with --data or BERTH_DATA"
	if errors.Is(err, fs.ErrPermission) {
		hint = "it can't be written; " + hint
	}
	return berth.Errorf(berth.CodeForbidden, "cannot make the data directory: %w: %s", err, hint)
}
