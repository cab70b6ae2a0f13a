package control

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/datafs"
)

// dataEntry returns the infrastructure whose shared filesystem a caller asks
// for, and the path on it.
func (h *Host) dataEntry(ctx context.Context, name, path string) (berth.InfrastructureConfig, string, error) {
	caller := h.caller(ctx)
	if !caller.Role.Includes(berth.RoleWrite) {
		return berth.InfrastructureConfig{}, "", needs(caller, berth.RoleWrite, "reach shared filesystems")
	}
	entry, err := h.entryFor(caller, berth.RoleWrite, name)
	if err != nil {
		return entry, "", err
	}
	if entry.DFS == nil {
		return entry, "", berth.Errorf(berth.CodeInvalid, "infrastructure %s has no shared filesystem: its entry in infra.yml has no mount_dfs", entry.Name)
	}
	relative, err := entry.DFS.DataPath(path)
	return entry, relative, err
}

// served calls fn with a client, and once more with another where the server
// went away before it answered.
func (h *Host) served(ctx context.Context, entry berth.InfrastructureConfig, fn func(*datafs.Client) (begun bool, err error)) error {
	for try := 0; ; try++ {
		client, task, err := h.serving(ctx, entry)
		if err != nil {
			return err
		}
		begun, err := fn(client)
		s := h.data.server(entry.Name)
		if !errors.Is(err, datafs.ErrAway) {
			s.answered()
			return err
		}
		s.forget(task)
		if begun || try == 1 || ctx.Err() != nil {
			return away(&entry, err)
		}
	}
}

func (h *Host) ListData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataEntry, error] {
	return dataSequence(ctx, h, q, func(c *datafs.Client, relative string) iter.Seq2[berth.DataEntry, error] {
		return c.List(ctx, relative, q.Recursive)
	})
}

func (h *Host) GetData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataChunk, error] {
	if blob, is := berth.ParseBlob(q.Path); is {
		return h.getBlob(ctx, q, blob)
	}
	return dataSequence(ctx, h, q, func(c *datafs.Client, relative string) iter.Seq2[berth.DataChunk, error] {
		return c.Get(ctx, relative, q.Recursive)
	})
}

func dataSequence[T any](ctx context.Context, h *Host, q berth.DataQuery, open func(*datafs.Client, string) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		entry, relative, err := h.dataEntry(ctx, q.Infrastructure, q.Path)
		if err != nil {
			yield(none, err)
			return
		}
		stopped := false
		err = h.served(ctx, entry, func(c *datafs.Client) (begun bool, err error) {
			for value, err := range open(c, relative) {
				if err != nil {
					return begun, err
				}
				begun = true
				if !yield(value, nil) {
					stopped = true
					return begun, nil
				}
			}
			return begun, nil
		})
		if err != nil && !stopped {
			yield(none, err)
		}
	}
}

func (h *Host) PutData(ctx context.Context, put berth.DataPut) (berth.DataEntry, error) {
	var done berth.DataEntry
	entry, relative, err := h.dataEntry(ctx, put.Infrastructure, put.Path)
	if err != nil {
		return done, err
	}
	if entry.DFS.ReadOnly {
		return done, berth.Errorf(berth.CodeForbidden, "the shared filesystem of %s is mounted read-only (read_only: true of mount_dfs)", entry.Name)
	}
	var opened io.ReadCloser // before a pod is started for what isn't there
	if opened, err = put.Open(); err != nil {
		return done, err
	}
	defer func() { _ = opened.Close() }()
	begun := false
	err = h.served(ctx, entry, func(c *datafs.Client) (bool, error) {
		if begun {
			_ = opened.Close()
			if opened, err = put.Open(); err != nil {
				return true, err
			}
		}
		content := &watched{Reader: opened}
		done, err = c.Put(ctx, relative, put, content)
		begun = begun || content.read
		return false, err
	})
	return done, err
}

// watched notes whether anything was read.
type watched struct {
	io.Reader
	read bool
}

func (w *watched) Read(p []byte) (int, error) {
	w.read = true
	return w.Reader.Read(p)
}

func (h *Host) RemoveData(ctx context.Context, q berth.DataQuery) error {
	entry, relative, err := h.dataEntry(ctx, q.Infrastructure, q.Path)
	if err != nil {
		return err
	}
	if entry.DFS.ReadOnly {
		return berth.Errorf(berth.CodeForbidden, "the shared filesystem of %s is mounted read-only (read_only: true of mount_dfs)", entry.Name)
	}
	tried := false
	return h.served(ctx, entry, func(c *datafs.Client) (bool, error) {
		err := c.Remove(ctx, relative, q.Recursive)
		if tried && berth.CodeOf(err) == berth.CodeNotFound {
			err = nil // the server that went away had done it
		}
		tried = true
		return false, err
	})
}
