package control

import (
	"context"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
)

// probeTimeout bounds how long a list of infrastructures waits for one of them.
const probeTimeout = 3 * time.Second

func (h *Host) Infrastructures(ctx context.Context) ([]berth.Infrastructure, error) {
	h.mu.Lock()
	file, err := h.file, h.fileErr
	h.mu.Unlock()
	if file == nil {
		if err != nil {
			return nil, err
		}
		return []berth.Infrastructure{}, nil
	}
	entries := visibleEntries(h.caller(ctx), file)
	list := make([]berth.Infrastructure, len(entries))
	done := make(chan struct{})
	for i, entry := range entries {
		go func() {
			list[i] = h.infrastructure(ctx, entry, file)
			done <- struct{}{}
		}()
	}
	for range list {
		<-done
	}
	return list, nil
}

// infrastructure asks one infrastructure how it stands.
func (h *Host) infrastructure(ctx context.Context, entry berth.InfrastructureConfig, file *config.File) berth.Infrastructure {
	out := berth.Infrastructure{Name: entry.Name, Kind: entry.Kind, Address: entry.Address, Namespace: entry.Namespace, State: berth.InfraUnknown}
	out.Default = entry.Name == file.Default || len(file.Infrastructures) == 1
	to, err := h.connect(entry, h.store.Instance())
	if err == nil {
		defer to.close()
		out.Address, out.Namespace = to.Server(), to.namespace
		if h.fleet != nil && !h.fleet.heldBySomebody(ctx, entry.Name) {
			reason := "no server has taken it up yet"
			out.Reason = &reason
			return out
		}
		err = h.start(ctx, entry.Name)
	}
	if err != nil {
		reason := err.Error()
		out.State, out.Reason = berth.InfraUnreachable, &reason
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	h.engine.Settle(ctx, entry.Name)
	health, live, queued := h.engine.Health(entry.Name)
	out.State, out.LiveTasks, out.QueuedTasks = health.State, live, queued
	if health.Reason != "" {
		out.Reason = &health.Reason
	}
	if !health.SeenAt.IsZero() {
		at := health.SeenAt.UTC()
		out.LastSeenAt = &at
	}
	if health.State == berth.InfraReady {
		if version, err := to.Version(ctx); err == nil {
			out.ServerVersion = &version
		}
	}
	return out
}

func (h *Host) CheckInfrastructure(ctx context.Context, name string) (berth.InfrastructureCheck, error) {
	entry, err := h.entryFor(h.caller(ctx), berth.RoleWrite, name)
	if err != nil {
		return berth.InfrastructureCheck{}, err
	}
	to, err := h.connect(entry, h.store.Instance())
	if err != nil {
		return berth.InfrastructureCheck{}, err
	}
	defer to.close()
	check, err := to.Check(ctx)
	if err != nil || !check.OK {
		return check, err
	}
	check.Rows = append(check.Rows, h.probe(ctx, entry)...) // plain tasks need neither
	return check, nil
}

func (h *Host) RemoveInfrastructure(ctx context.Context, name string, force bool) error {
	if caller := h.caller(ctx); !caller.MayAdminister() {
		return needs(caller, berth.RoleAdmin, "remove infrastructures")
	}
	h.mu.Lock()
	entry, err := h.entryLocked(name)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	running, err := h.store.CountUnended(ctx, name)
	if err != nil {
		return err
	}
	if running > 0 && !force {
		return berth.Errorf(berth.CodeConflict, "infrastructure %s has %d tasks that have not ended: cancel them, wait for them, or remove it with --force, after which they stay as they are", name, running)
	}
	if err := config.Remove(h.config.InfraPath, name); err != nil {
		return err
	}
	if err := h.store.ForgetIdentity(ctx, name); err != nil {
		return err
	}
	h.forgetKubeconfig(entry)
	return h.readAgain()
}

// readAgain takes in an edit of our own at once. One that can't be read after
// it took its last entry away: nothing is reconciled from then on.
func (h *Host) readAgain() error {
	file, err := config.Load(h.config.InfraPath)
	if err == nil {
		h.reload(file, nil)
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.file, h.fileErr = nil, err
	for name := range h.started {
		h.engine.Remove(name)
		delete(h.started, name)
	}
	return nil
}
