package registry

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Servers that share an object store sweep it and push into it at once, without
// a lock. What keeps them apart is the order of two writes:
//
//	a push:   says that it claims the blob    then   looks whether it is condemned
//	a sweep:  says that the blob is condemned then   looks whether it is claimed
//
// One of the two sees the other. A sweep spares what is claimed; a push waits
// until the sweep is over, and finds the blob or not. What is young is claimed
// by its age, which is the store's clock's: a sweep doesn't look at it.
const (
	claimed    = "sweep/claimed/"   // and the digest
	condemned  = "sweep/condemned/" // the digest, and whose sweep it is
	litterMark = "sweep/garbage"    // there may be some

	fresh       = 15 * time.Minute // how young a blob or claim is to be for no further claim
	sweepAtMost = 10 * time.Minute // what is condemned for longer is of a sweep that died
)

type writingKey struct{}

// writing marks a request that may come to rely on blobs that are there.
func writing(ctx context.Context) context.Context {
	return context.WithValue(ctx, writingKey{}, true)
}

// digestAt returns the digest of the blob whose content a key is.
func digestAt(key string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(key, "/"+root+"/blobs/")
	fields := strings.Split(rest, "/")
	if !ok || len(fields) != 4 || fields[3] != "data" {
		return "", false
	}
	return digest.NewDigestFromEncoded(digest.Algorithm(fields[0]), fields[2]), true
}

// name is a digest as part of a key.
func name(d digest.Digest) string { return strings.ReplaceAll(string(d), ":", "-") }

// claim keeps a blob that a push relies on, or stores, from being swept. It
// waits while it is.
func (d shared) claim(ctx context.Context, key string) error {
	blob, ok := digestAt(key)
	if !ok || ctx.Value(writingKey{}) == nil {
		return nil
	}
	object := strings.TrimPrefix(key, "/")
	if o, err := d.objects.Stat(ctx, object); err == nil && time.Since(o.Modified) < fresh {
		return nil
	}
	if o, err := d.objects.Stat(ctx, claimed+name(blob)); err != nil || time.Since(o.Modified) > fresh {
		if err := d.objects.Put(ctx, claimed+name(blob), strings.NewReader("")); err != nil {
			return err
		}
	}
	for {
		swept := false
		for o, err := range d.objects.List(ctx, condemned+name(blob)+"/", false) {
			if err != nil {
				return err
			}
			swept = swept || time.Since(o.Modified) < sweepAtMost
		}
		if !swept {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(cmp.Or(d.wait, 200*time.Millisecond)):
		}
	}
}

// touched reports whether a blob is claimed since a time.
func (d shared) touched(ctx context.Context, blob digest.Digest, since time.Time) (bool, error) {
	o, err := d.objects.Stat(ctx, claimed+name(blob))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && o.Modified.After(since), err
}

// condemn says that a sweep is about to remove a blob, and looks whether it may.
// Ended has to be called when it is removed, or wasn't.
func (d shared) condemn(ctx context.Context, blob digest.Digest, sweep string, before time.Time) (may bool, ended func() error, err error) {
	mark := condemned + path.Join(name(blob), sweep)
	ended = func() error { return d.objects.Delete(context.WithoutCancel(ctx), mark) }
	if err := d.objects.Put(ctx, mark, strings.NewReader("")); err != nil {
		return false, ended, err
	}
	is, err := d.touched(ctx, blob, before)
	if err != nil || is {
		return false, ended, err
	}
	// It may have been removed and stored anew meanwhile.
	o, err := d.objects.Stat(ctx, strings.TrimPrefix(blobKey(blob), "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, ended, nil
	}
	return err == nil && !o.Modified.After(before), ended, err
}

// blobKey is the key of a blob's content.
func blobKey(d digest.Digest) string {
	hex := d.Encoded()
	return "/" + path.Join(root, "blobs", d.Algorithm().String(), hex[:2], hex, "data")
}

// forget removes claims that are too old to count.
func (d shared) forget(ctx context.Context, before time.Time) error {
	var old []string
	for o, err := range d.objects.List(ctx, "sweep/", false) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(o.Key, claimed) && o.Modified.Before(before) || strings.HasPrefix(o.Key, condemned) && time.Since(o.Modified) > 2*sweepAtMost {
			old = append(old, o.Key)
		}
	}
	for _, key := range old {
		if err := d.objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
