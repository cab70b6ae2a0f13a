package engine

import "time"

// quotaWatch wakes held tasks.
type quotaWatch struct {
	watching  bool
	forbidden bool
	changes   int         // that were told so far
	retry     *time.Timer // when held tasks try again though no change is told; nil: none waits
}

// longest is how long held tasks wait at most.
func (q *quotaWatch) longest() time.Duration {
	if q.forbidden {
		return 30 * time.Second
	}
	return 5 * time.Minute
}

// watchQuota lets held tasks try again when a quota changes: at once, and a few
// times after it. Where quotas can't be watched, every 30 s.
func (s *step) watchQuota() {
	if s.quota.retry == nil {
		s.retryHeld(s.quota.longest())
	}
	if s.quota.watching || s.quota.forbidden {
		return
	}
	s.quota.watching = true
	driver, ctx, l := s.driver, s.ctx, s.loop
	go func() {
		err := driver.WatchQuota(ctx, func() {
			l.inbox.post(func(s *step) {
				s.quota.changes++
				s.releaseEach()
				s.retryHeld(time.Second)
			})
		})
		if ctx.Err() != nil {
			return
		}
		l.inbox.post(func(s *step) {
			s.quota.watching, s.quota.forbidden = false, true
			s.engine.log.Info("quotas can't be watched; held tasks try again every 30s", "infrastructure", s.name, "error", err)
			s.retryHeld(s.quota.longest())
		})
	}()
}

// retryHeld lets held tasks try again after a while, and then at ever longer
// intervals. What watches a quota may hear of a change before the admission that
// counts by it, which then refuses as before; no other event follows.
func (s *step) retryHeld(wait time.Duration) {
	if s.quota.retry != nil {
		s.quota.retry.Stop()
	}
	s.quota.retry = s.after(wait, func(s *step) {
		if s.queued == 0 && s.creating == 0 {
			s.quota.retry, s.quota.forbidden = nil, false
			return
		}
		s.releaseEach()
		s.retryHeld(min(4*wait, s.quota.longest()))
	})
}
