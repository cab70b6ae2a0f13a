// Package objecttest has an object store in memory, which can be made to fail,
// and the suite that every object store passes.
package objecttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/objects"
)

// Memory is an object store in memory.
type Memory struct {
	mu      sync.Mutex
	content map[string]entry
	down    bool
	puts    int

	// Before, where it is set, is called ahead of each operation: "put", "get",
	// "range", "stat", "list" or "delete". Its error is the operation's.
	Before func(operation, key string) error
}

type entry struct {
	data     []byte
	modified time.Time
}

var _ objects.Store = (*Memory)(nil)

// Reachable says whether the store can be reached from now on.
func (m *Memory) Reachable(ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = !ok
}

// Age makes an object older.
func (m *Memory) Age(key string, by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.content[key]
	e.modified = e.modified.Add(-by)
	m.content[key] = e
}

// Puts is how many objects were stored so far.
func (m *Memory) Puts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.puts
}

// Keys returns the keys that are there, in order.
func (m *Memory) Keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.content))
}

func (m *Memory) String() string { return "memory" }

// begin takes the lock, unless the operation fails.
func (m *Memory) begin(ctx context.Context, operation, key string) error {
	if m.Before != nil {
		if err := m.Before(operation, key); err != nil {
			return err
		}
	}
	m.mu.Lock()
	err := ctx.Err()
	if m.down {
		err = berth.Errorf(berth.CodeUnavailable, "the store in memory can't be reached")
	}
	if err != nil {
		m.mu.Unlock()
	}
	return err
}

// get finds an object.
func (m *Memory) get(ctx context.Context, operation, key string) (entry, objects.Object, error) {
	if err := m.begin(ctx, operation, key); err != nil {
		return entry{}, objects.Object{}, err
	}
	defer m.mu.Unlock()
	e, ok := m.content[key]
	if !ok {
		return e, objects.Object{}, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return e, objects.Object{Key: key, Size: int64(len(e.data)), Modified: e.modified}, nil
}

func (m *Memory) Get(ctx context.Context, key string) ([]byte, objects.Object, error) {
	e, o, err := m.get(ctx, "get", key)
	return bytes.Clone(e.data), o, err
}

func (m *Memory) Range(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	e, _, err := m.get(ctx, "range", key)
	if err != nil {
		return nil, err
	}
	data := e.data[min(offset, int64(len(e.data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *Memory) Put(ctx context.Context, key string, content io.Reader) error {
	data, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	if err := m.begin(ctx, "put", key); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.content == nil {
		m.content = map[string]entry{}
	}
	m.puts++
	m.content[key] = entry{data, time.Now()}
	return nil
}

func (m *Memory) Stat(ctx context.Context, key string) (objects.Object, error) {
	_, o, err := m.get(ctx, "stat", key)
	return o, err
}

func (m *Memory) List(ctx context.Context, prefix string, folders bool) iter.Seq2[objects.Object, error] {
	return func(yield func(objects.Object, error) bool) {
		if err := m.begin(ctx, "list", prefix); err != nil {
			yield(objects.Object{}, err)
			return
		}
		var found []objects.Object
		for _, key := range slices.Sorted(maps.Keys(m.content)) {
			rest, ok := strings.CutPrefix(key, prefix)
			if !ok {
				continue
			}
			if i := strings.IndexByte(rest, '/'); folders && i >= 0 {
				folder := prefix + rest[:i+1]
				if n := len(found); n == 0 || found[n-1].Key != folder {
					found = append(found, objects.Object{Key: folder, Folder: true})
				}
				continue
			}
			e := m.content[key]
			found = append(found, objects.Object{Key: key, Size: int64(len(e.data)), Modified: e.modified})
		}
		m.mu.Unlock()
		for _, o := range found {
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := m.begin(ctx, "delete", key); err != nil {
		return err
	}
	defer m.mu.Unlock()
	delete(m.content, key)
	return nil
}
