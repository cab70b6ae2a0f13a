// Package objects is what Berth needs of an object store, such as a bucket of
// S3: an interface and its promises, and nothing of any store. Logs and images
// go through it; package bucket has it over the network.
package objects

import (
	"context"
	"io"
	"iter"
	"time"
)

// Object is what a store says of an object, or of what keys below a "/" have
// in common.
type Object struct {
	Key      string // of a folder with its "/" at the end
	Size     int64
	Modified time.Time // by the store's clock
	Folder   bool
}

// Store is an object store. Once Put or Delete has returned everybody sees what
// it did. An error of a key that isn't there is fs.ErrNotExist; one of a store
// that can't be reached, or is busy, has the code unavailable and all may be
// tried again; one of what isn't allowed has the code forbidden. No error has a
// credential in it. All methods may be called at once.
type Store interface {
	// Get returns a small object.
	Get(ctx context.Context, key string) ([]byte, Object, error)

	// Range reads length bytes from an offset on; all that follow where length is negative.
	Range(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Put stores an object, in the place of one that is there, whole or not at all.
	Put(ctx context.Context, key string, content io.Reader) error

	Stat(ctx context.Context, key string) (Object, error)

	// List yields what begins with a prefix, ordered by key: all of it, or with
	// folders what is behind a further "/" as one.
	List(ctx context.Context, prefix string, folders bool) iter.Seq2[Object, error]

	// Delete removes an object. One that isn't there is no error.
	Delete(ctx context.Context, key string) error

	// String tells people where it is.
	String() string
}

// Under returns what keys that begin with a prefix are in a store, without it.
func Under(s Store, prefix string) Store { return under{s, prefix} }

type under struct {
	Store
	prefix string
}

func (u under) own(o Object) Object {
	o.Key = o.Key[len(u.prefix):]
	return o
}

func (u under) Get(ctx context.Context, key string) ([]byte, Object, error) {
	data, o, err := u.Store.Get(ctx, u.prefix+key)
	if err == nil {
		o = u.own(o)
	}
	return data, o, err
}

func (u under) Range(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return u.Store.Range(ctx, u.prefix+key, offset, length)
}

func (u under) Put(ctx context.Context, key string, content io.Reader) error {
	return u.Store.Put(ctx, u.prefix+key, content)
}

func (u under) Stat(ctx context.Context, key string) (Object, error) {
	o, err := u.Store.Stat(ctx, u.prefix+key)
	if err == nil {
		o = u.own(o)
	}
	return o, err
}

func (u under) List(ctx context.Context, prefix string, folders bool) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for o, err := range u.Store.List(ctx, u.prefix+prefix, folders) {
			if err == nil {
				o = u.own(o)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (u under) Delete(ctx context.Context, key string) error {
	return u.Store.Delete(ctx, u.prefix+key)
}
