package control

import (
	"context"
	"reflect"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
)

// running is what an infrastructure is reconciled with.
type running struct {
	entry  berth.InfrastructureConfig
	server string
}

// reload takes in an infra.yml that changed. A bad edit keeps the old one.
func (h *Host) reload(file *config.File, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fileErr = err
	if err != nil {
		h.config.Log.Error("infra.yml was changed and can't be used; the version before it stays in force", "error", err)
		return
	}
	h.file = file
	h.config.Log.Info("infra.yml was read again")
	select {
	case h.sweepNow <- struct{}{}:
	default:
	}
	for name, was := range h.started {
		entry, ok := find(file, name)
		if !ok {
			h.engine.Remove(name)
			go func() { // what is waited for may need this lock
				h.clusters.Drop(name)
				h.schedules.Drop(name)
				h.runs.Drop(name)
			}()
			delete(h.started, name)
			continue
		}
		if reflect.DeepEqual(entry, was.entry) && h.sameServer(entry, was) {
			continue // new credentials for the same server are read when the old ones are refused
		}
		if err := h.startLocked(context.Background(), entry); err != nil {
			h.config.Log.Error("an infrastructure can't be used as it is in infra.yml now", "infrastructure", name, "error", err)
		}
	}
	if h.fleet != nil && h.fleet.keeper != nil {
		h.fleet.keeper.Nudge()
	}
	if h.stays {
		h.startAllLocked(context.Background())
	}
}

// stay begins to reconcile all infrastructures, those without tasks too, and
// those that come later: whoever stays knows how they stand, and keeps their
// tokens from expiring.
func (h *Host) stay(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stays = true
	if h.file != nil {
		h.startAllLocked(ctx)
	}
}

func (h *Host) startAllLocked(ctx context.Context) {
	for _, entry := range h.file.Infrastructures {
		if _, ok := h.started[entry.Name]; ok || h.fleet != nil && !h.fleet.keeper.Reconciles(entry.Name) {
			continue // it runs, or is another server's
		}
		if err := h.startLocked(ctx, entry); err != nil {
			h.config.Log.Warn("an infrastructure can't be used", "infrastructure", entry.Name, "error", err)
		}
	}
}

// sameServer reports whether an entry still leads to the server that it did: its
// kubeconfig may have changed.
func (h *Host) sameServer(entry berth.InfrastructureConfig, was running) bool {
	to, err := h.connect(entry, h.store.Instance())
	if err != nil {
		return true // what is in use is better than that
	}
	defer to.close()
	return to.Server() == was.server
}

func find(file *config.File, name string) (berth.InfrastructureConfig, bool) {
	for _, entry := range file.Infrastructures {
		if entry.Name == name {
			return entry, true
		}
	}
	return berth.InfrastructureConfig{}, false
}

// start makes sure that an infrastructure is reconciled.
func (h *Host) start(ctx context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.started[name]; ok {
		return nil
	}
	entry, err := h.entryLocked(name)
	if err != nil {
		return err
	}
	if h.fleet != nil {
		if err := h.fleet.keeper.Trouble(entry.Name); err != nil {
			return err
		}
		return elsewhere(entry.Name)
	}
	return h.startLocked(ctx, entry)
}

func (h *Host) startLocked(ctx context.Context, entry berth.InfrastructureConfig) error {
	driver, err := h.connect(entry, h.store.Instance())
	if err != nil {
		return err
	}
	if err := h.engine.Start(ctx, entry, driver); err != nil {
		return err
	}
	h.started[entry.Name] = running{entry, driver.Server()}
	h.runs.Take(entry.Name)
	h.schedules.Take(entry.Name)
	h.clusters.Take(entry.Name)
	return nil
}

// entryLocked returns the entry of infra.yml by name, or for no name the
// default one.
func (h *Host) entryLocked(name string) (berth.InfrastructureConfig, error) {
	var none berth.InfrastructureConfig
	if h.file == nil {
		if h.fileErr != nil {
			return none, h.fileErr
		}
		return none, berth.Errorf(berth.CodeNotFound, "there is no %s: add an infrastructure with berth infra add NAME --kubeconfig FILE", h.config.InfraPath)
	}
	if name == "" {
		name = h.file.Default
	}
	if name == "" && len(h.file.Infrastructures) == 1 {
		return h.file.Infrastructures[0], nil
	}
	var names []string
	for _, entry := range h.file.Infrastructures {
		if entry.Name == name {
			return entry, nil
		}
		names = append(names, entry.Name)
	}
	if name == "" {
		return none, berth.Errorf(berth.CodeInvalid, "%s has %d infrastructures and no default: choose one with --on %s, or write default: NAME into it", h.config.InfraPath, len(names), strings.Join(names, "|"))
	}
	return none, berth.Errorf(berth.CodeNotFound, "there is no infrastructure %q in %s; it has %s", name, h.config.InfraPath, strings.Join(names, ", "))
}
