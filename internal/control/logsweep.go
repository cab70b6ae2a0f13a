package control

import (
	"context"
	"time"

	"github.com/berth-run/berth"
)

// sweepEvery is how often stored logs are looked through for what is not to be
// kept, and sweepAfter how much output may come in between at most.
const (
	sweepEvery = time.Hour
	sweepAfter = 1 << 30 // bytes, of which a tenth is on the disk
)

// sweepLogs removes logs that are older, or take more, than infra.yml allows.
func (h *Host) sweepLogs(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	var read int64
	for due := time.Since(h.logs.Swept()) > sweepEvery; ; {
		if due {
			read = h.logBytes.Load()
			removed, err := h.logs.Sweep(ctx, h.logLimits(), h.ended, time.Now())
			if err != nil && ctx.Err() == nil {
				h.config.Log.Error("stored logs could not be looked through", "error", err)
			}
			if removed > 0 {
				h.config.Log.Info("stored logs were removed", "count", removed)
			}
			h.sweepFiles(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-h.sweepNow:
			due = true
		case <-t.C:
			due = time.Since(h.logs.Swept()) > sweepEvery || h.logBytes.Load()-read > sweepAfter
		}
	}
}

// sweepFiles removes what workflows left in the registry and nobody used for as
// long as logs are kept.
func (h *Host) sweepFiles(ctx context.Context) {
	limits := h.logLimits()
	if limits.MaxAge <= 0 {
		return
	}
	removed, err := h.packages.blobStore().Expire(ctx, time.Now().Add(-limits.MaxAge))
	if err != nil && ctx.Err() == nil {
		h.config.Log.Error("files of workflows could not be looked through", "error", err)
	}
	if removed > 0 {
		h.config.Log.Info("files of workflows were removed", "count", removed)
	}
}

// logLimits are those of infra.yml as it was last read well. While it was never
// read well nothing is removed.
func (h *Host) logLimits() berth.LogLimits {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return berth.LogLimits{}
	}
	return h.file.Logs
}

// ended says when a task ended, if all of it has. What the store doesn't know
// is of nobody any more.
func (h *Host) ended(ctx context.Context, task string) (time.Time, bool, error) {
	life, err := h.store.Life(ctx, task)
	if berth.CodeOf(err) == berth.CodeNotFound {
		return time.Time{}, true, nil
	}
	if err != nil {
		return time.Time{}, false, err
	}
	for _, a := range life.Attempts {
		if a.Logs == berth.LogsOpen {
			return time.Time{}, false, nil
		}
	}
	if life.Task.FinishedAt == nil {
		return time.Time{}, false, nil
	}
	return *life.Task.FinishedAt, life.Task.State.Terminal(), nil
}
