package control

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/workflow"
)

// leaseOf is what is to be held for what is stored of an infrastructure's runs and
// schedules.
func (h *Host) leaseOf(infrastructure string) (berth.Lease, error) {
	if h.fleet == nil {
		return berth.Lease{}, nil
	}
	return h.fleet.lease(infrastructure)
}

func (h *Host) StartRun(ctx context.Context, s berth.RunSubmission) (berth.Run, error) {
	caller := h.caller(ctx)
	entry, err := h.homeOf(ctx, caller, s)
	if err != nil {
		return berth.Run{}, err
	}
	if s.Key == "" {
		s.Key = xid.New().String()
	}
	key := ownKey(caller, s.Key)
	if run, err := h.store.RunByKey(ctx, key); berth.CodeOf(err) != berth.CodeNotFound {
		return run, err
	}
	record := &berth.RunRecord{Key: key, Caller: caller, Run: berth.Run{
		ID: berth.NewRunID(xid.New().String()), State: berth.RunRunning, On: s.On, Infrastructure: entry.Name, Arguments: s.Arguments,
		OnError: s.OnError, Limits: s.Limits, CreatedAt: time.Now().UTC(), Owner: caller.Name,
	}}
	if err := h.setProgram(ctx, record, s.Source); err != nil {
		return berth.Run{}, err
	}
	if err := checkRun(&record.Run); err != nil {
		return berth.Run{}, err
	}
	return h.beginRun(ctx, entry, record)
}

// homeOf returns the infrastructure that a run belongs to. Where its calls run is
// another matter: where several are possible it is the first of them.
func (h *Host) homeOf(ctx context.Context, caller berth.Caller, s berth.RunSubmission) (berth.InfrastructureConfig, error) {
	name, where, err := berth.ParseOn(s.On)
	if err != nil {
		return berth.InfrastructureConfig{}, err
	}
	if s.Infrastructure != "" {
		name, where = s.Infrastructure, nil
	}
	h.mu.Lock()
	file := h.file
	h.mu.Unlock()
	if name != "" || file == nil || len(where) == 0 && file.Default != "" {
		return h.entryFor(caller, berth.RoleWrite, name)
	}
	if !caller.Role.Includes(berth.RoleWrite) {
		return berth.InfrastructureConfig{}, needs(caller, berth.RoleWrite, "run workflows")
	}
	for _, entry := range visibleEntries(caller, file) {
		if h.lacks(ctx, &entry, &berth.TaskSpec{Where: where}) == "" {
			return entry, nil
		}
	}
	if len(where) > 0 {
		return berth.InfrastructureConfig{}, berth.Errorf(berth.CodeInvalid, "no infrastructure has the labels %s: see labels: in infra.yml", s.On)
	}
	return h.entryFor(caller, berth.RoleWrite, name)
}

// checkRun says what is wrong with what a run is to be.
func checkRun(r *berth.Run) error {
	switch r.OnError {
	case "":
		r.OnError = berth.OnErrorFinish
	case berth.OnErrorFinish, berth.OnErrorCancel:
	default:
		return berth.Errorf(berth.CodeInvalid, "on error %q: write finish, for other calls to go on, or cancel", r.OnError)
	}
	if r.Limits.Steps < 0 || r.Limits.Timeout < 0 {
		return berth.Errorf(berth.CodeInvalid, "the limits of a run are not below 0")
	}
	return nil
}

// setProgram gives a run its program, checked, with the packages that it uses.
func (h *Host) setProgram(ctx context.Context, record *berth.RunRecord, source berth.WorkflowSource) error {
	program, err := workflow.Load(workflow.Files(source.Files), source.Main)
	if err != nil {
		return wrongProgram(err)
	}
	record.Source = berth.WorkflowSource{Main: program.Main, Files: map[string][]byte{}}
	for name, text := range program.Files {
		record.Source.Files[name] = []byte(text)
	}
	record.Packages, record.Run.Packages, record.Run.Workflow = nil, []berth.RunPackage{}, program.Main
	report, err := program.Check(func(name, version string) (berth.Package, error) {
		pkg, err := h.Package(ctx, record.Run.Infrastructure, name, version)
		if err == nil {
			record.Packages = append(record.Packages, pkg)
			record.Run.Packages = append(record.Run.Packages, berth.RunPackage{Name: pkg.Name, Version: pkg.Version, Digest: pkg.Digest})
		}
		return pkg, err
	})
	if err == nil && len(report.Problems) > 0 {
		err = workflow.Problems(report.Problems)
	}
	if err != nil {
		return wrongProgram(err)
	}
	if err := program.CheckArguments(record.Run.Arguments); err != nil {
		return berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	return nil
}

// wrongProgram is the error for a program that can't run.
func wrongProgram(err error) error {
	var problems workflow.Problems
	if errors.As(err, &problems) {
		return berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	if berth.CodeOf(err) == berth.CodeInternal {
		return berth.Errorf(berth.CodeInvalid, "cannot read the program: %w", err)
	}
	return err
}

// beginRun stores a run and has it executed.
func (h *Host) beginRun(ctx context.Context, entry berth.InfrastructureConfig, record *berth.RunRecord) (berth.Run, error) {
	if err := h.start(ctx, entry.Name); err != nil {
		return berth.Run{}, err
	}
	lease, err := h.leaseOf(entry.Name)
	if err == nil {
		err = h.store.PutRun(ctx, lease, record)
	}
	if err != nil {
		return berth.Run{}, err
	}
	h.runs.Begin(record.Run.ID, entry.Name)
	return h.store.Run(ctx, record.Run.ID)
}

// ofRun is what rights are asked for with: those to a run are those to a task.
func ofRun(r *berth.Run) *berth.Task {
	return &berth.Task{Owner: r.Owner, Infrastructure: r.Infrastructure}
}

// visibleRun returns a run if the caller may see it. To everybody else it is as
// if there were none.
func (h *Host) visibleRun(ctx context.Context, id string) (berth.Run, error) {
	run, err := h.store.Run(ctx, id)
	if err != nil {
		return berth.Run{}, err
	}
	if caller := h.caller(ctx); !caller.MaySee(ofRun(&run)) {
		return berth.Run{}, berth.NoSuchRun(id)
	}
	return run, nil
}

func (h *Host) Run(ctx context.Context, id string) (berth.Run, error) {
	run, err := h.visibleRun(ctx, id)
	if err != nil || run.State.Terminal() {
		return run, err
	}
	for now, err := range h.runs.Watch(ctx, id) { // which knows more than is stored
		return now, err
	}
	return run, nil
}

func (h *Host) Runs(ctx context.Context, q berth.RunQuery) (berth.RunPage, error) {
	return h.store.Runs(ctx, q, h.caller(ctx))
}

func (h *Host) WatchRun(ctx context.Context, id string) iter.Seq2[berth.Run, error] {
	return func(yield func(berth.Run, error) bool) {
		if _, err := h.visibleRun(ctx, id); err != nil {
			yield(berth.Run{}, err)
			return
		}
		h.runs.Watch(ctx, id)(yield)
	}
}

func (h *Host) RunCalls(ctx context.Context, id string, follow bool) iter.Seq2[berth.RunCall, error] {
	return func(yield func(berth.RunCall, error) bool) {
		if _, err := h.visibleRun(ctx, id); err != nil {
			yield(berth.RunCall{}, err)
			return
		}
		h.runs.Calls(ctx, id, follow)(yield)
	}
}

func (h *Host) CancelRun(ctx context.Context, id string) (berth.Run, error) {
	run, err := h.visibleRun(ctx, id)
	if err != nil {
		return run, err
	}
	if caller := h.caller(ctx); !caller.MayCancel(ofRun(&run)) {
		return berth.Run{}, needs(caller, berth.RoleWrite, "cancel runs")
	}
	if err := h.store.CancelRun(ctx, id, time.Now().UTC()); err != nil {
		return berth.Run{}, err
	}
	h.runs.Cancel(id)
	return h.store.Run(ctx, id)
}

func (h *Host) ResumeRun(ctx context.Context, r berth.RunResumption) (berth.Run, error) {
	run, err := h.visibleRun(ctx, r.ID)
	if err != nil {
		return run, err
	}
	caller := h.caller(ctx)
	if !caller.MayCancel(ofRun(&run)) {
		return berth.Run{}, needs(caller, berth.RoleWrite, "resume runs")
	}
	record, err := h.store.RunRecord(ctx, r.ID)
	if err != nil {
		return berth.Run{}, err
	}
	if r.Key != "" && record.ResumeKey == r.Key {
		return run, nil
	}
	switch run.State {
	case berth.RunRunning:
		return berth.Run{}, berth.Errorf(berth.CodeConflict, "run %s goes on by itself, and needs no resuming; berth workflow cancel %s ends it", r.ID, r.ID)
	case berth.RunSucceeded:
		return berth.Run{}, berth.Errorf(berth.CodeConflict, "run %s has succeeded: there is nothing to resume", r.ID)
	}
	entry, err := h.entryFor(caller, berth.RoleWrite, run.Infrastructure)
	if err != nil {
		return berth.Run{}, err
	}
	if r.Source != nil {
		if err := h.setProgram(ctx, &record, *r.Source); err != nil {
			return berth.Run{}, err
		}
	}
	now := time.Now().UTC()
	record.Run.State, record.Run.ResumedAt, record.ResumeKey = berth.RunRunning, &now, r.Key
	record.Run.Resumed++
	record.Run.FinishedAt, record.Run.Error, record.Run.Reason, record.Run.Diverged = nil, nil, nil, nil
	return h.beginRun(ctx, entry, &record)
}

func (h *Host) Cache(ctx context.Context, q berth.CacheQuery) (berth.CachePage, error) {
	return h.store.CachedCalls(ctx, q, h.caller(ctx))
}

func (h *Host) ClearCache(ctx context.Context, q berth.CacheQuery) (int, error) {
	caller := h.caller(ctx)
	if !caller.Role.Includes(berth.RoleWrite) {
		return 0, needs(caller, berth.RoleWrite, "clear the cache")
	}
	return h.store.ClearCachedCalls(ctx, q, caller)
}
