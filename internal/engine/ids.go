package engine

import (
	"context"
	"sync"

	"github.com/rs/xid"
)

// ids gives tasks their ids. Later tasks have greater ones, as lists of tasks
// go by them: those of two processes, made within one second, would be in no
// order by themselves.
type ids struct {
	mu   sync.Mutex
	last xid.ID // zero until the store was asked
}

// next returns an id that is greater than that of any task in the store.
func (i *ids) next(ctx context.Context, store Store) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.last.IsNil() {
		newest, err := store.NewestTask(ctx)
		if err != nil {
			return "", err
		}
		// Another form of id, of an earlier version or a test, orders nothing.
		i.last, _ = xid.FromString(newest)
	}
	id := xid.New()
	if id.Compare(i.last) <= 0 {
		id = after(i.last)
	}
	i.last = id
	return id.String(), nil
}

// after is the id that follows another.
func after(id xid.ID) xid.ID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			break
		}
	}
	return id
}
