package engine

import (
	"context"
)

// WatchCluster returns a channel that has a value after each change of a task of
// a compute cluster.
func (e *Engine) WatchCluster(id string) (changed <-chan struct{}, stop func()) {
	return e.hub.watch(id)
}

// Address is the IP address of a task's pod, empty while it isn't known.
func (e *Engine) Address(ctx context.Context, id string) (string, error) {
	life, err := e.life(ctx, id)
	if err != nil {
		return "", err
	}
	if a := life.Current(); a != nil {
		return a.Address, nil
	}
	return "", nil
}
