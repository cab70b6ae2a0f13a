package lease

import (
	"context"
)

// rebalance drops what was lost, gives away what is others' share, and takes what is ours.
func (k *Keeper) rebalance(ctx context.Context) {
	self := k.config.Self().ID
	sharing := k.Sharing()
	share := Share(sharing.Servers, sharing.Leases)
	current := map[string]string{}
	for _, lease := range sharing.Leases {
		current[lease.Infrastructure] = lease.Holder
	}
	now := k.config.Now()

	k.mu.Lock()
	var give, start []string
	for name, h := range k.held {
		switch {
		case h.busy:
		case h.lost || share[name] != self:
			give = append(give, name)
			h.busy = true
		case !h.started && now >= h.retryAt && now < h.until:
			start = append(start, name)
			h.busy = true
		}
	}
	var take []string
	for name, server := range share {
		if server == self && k.held[name] == nil && (current[name] == "" || current[name] == self) {
			take = append(take, name)
		}
	}
	k.mu.Unlock()

	for _, name := range give {
		k.give(ctx, name)
	}
	for _, name := range take {
		if k.take(ctx, name) {
			start = append(start, name)
		}
	}
	for _, name := range start {
		k.start(ctx, name)
	}
}

func (k *Keeper) take(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	before := k.config.Now()
	lease, ok, err := k.store.Acquire(ctx, name, k.config.Self().ID)
	if err != nil {
		k.config.Log.Warn("a lease can't be taken", "infrastructure", name, "error", err)
	}
	if err != nil || !ok {
		return false
	}
	k.config.Log.Info("took the lease of an infrastructure", "infrastructure", name, "fence", lease.Fence)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[name] = &holding{lease: lease, until: before + validFor, busy: true}
	return true
}

// start takes up an infrastructure, beside the keeper's own work.
func (k *Keeper) start(ctx context.Context, name string) {
	k.work.Go(func() {
		err := k.config.Taken(ctx, name)
		if err != nil && ctx.Err() == nil {
			k.config.Log.Warn("an infrastructure can't be reconciled", "infrastructure", name, "error", err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		h := k.held[name]
		h.busy, h.started, h.trouble = false, err == nil, err
		if err != nil {
			h.retryAt = k.config.Now() + renewEvery
		}
		close(k.changed)
		k.changed = make(chan struct{})
	})
}

// give stops reconciling an infrastructure, and then releases its lease, which
// is renewed meanwhile.
func (k *Keeper) give(ctx context.Context, name string) {
	k.work.Go(func() {
		k.config.Dropped(name)
		release := func(ctx context.Context) {
			k.mu.Lock()
			h := k.held[name]
			delete(k.held, name)
			k.mu.Unlock()
			if h.lost {
				return
			}
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			if err := k.store.Release(ctx, h.lease); err != nil {
				k.config.Log.Warn("a lease can't be released; it runs out by itself", "infrastructure", name, "error", err)
				return
			}
			k.config.Log.Info("gave the lease of an infrastructure away", "infrastructure", name)
		}
		select {
		case k.after <- release:
		case <-ctx.Done(): // Leave releases it
			k.mu.Lock()
			delete(k.held, name)
			k.mu.Unlock()
		}
	})
}
