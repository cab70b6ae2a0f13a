package cluster

import (
	"context"
	"fmt"
	"time"
)

// await asks until something holds. A component that dies meanwhile, or takes too long, is named with
// the end of its log.
func (c *Cluster) await(ctx context.Context, component string, limit time.Duration, holds func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := holds()
		if ok {
			return nil
		}
		for _, p := range c.Processes().All() {
			if !p.Alive() {
				return fmt.Errorf("%s has ended; the end of its log (%s):\n%s", p.Name, c.Processes().Log(p.Name), c.Processes().Tail(p.Name, 20))
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s (%v); the end of its log (%s):\n%s", component, limit, err, c.Processes().Log(component), c.Processes().Tail(component, 20))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
