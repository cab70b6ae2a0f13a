package runs

import (
	"context"
	"time"

	"github.com/berth-run/berth"
)

// pauses returns a function that waits before the next try, longer each time; it
// reports whether there is to be one.
func pauses(ctx context.Context) func() bool {
	wait := 100 * time.Millisecond
	return func() bool {
		ok := sleep(ctx, wait)
		wait = min(2*wait, 5*time.Second)
		return ok
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retried calls fn until it succeeds, or fails for good.
func retried[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	for wait := pauses(ctx); ; {
		value, err := fn()
		if err == nil || berth.Lasting(err) || !wait() {
			return value, err
		}
	}
}
