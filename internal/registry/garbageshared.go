package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// collectShared collects while other servers, and this one, may write; see
// claim.go.
func (g *garbage) collectShared(ctx context.Context) (err error) {
	s := g.registry.shared
	// Who removes something from here on notes that there is garbage again.
	if err := s.objects.Delete(ctx, litterMark); err != nil {
		return err
	}
	defer func() {
		if err != nil || g.report.Spared > 0 {
			g.registry.litter(context.WithoutCancel(ctx))
		}
	}()
	if err := g.purgeOwn(ctx); err != nil {
		return err
	}
	names, all, err := g.markAll(ctx)
	if err != nil {
		return err
	}
	var blobs []digest.Digest
	err = names.Blobs().Enumerate(ctx, func(d digest.Digest) error {
		switch {
		case g.marked[d]:
			g.report.Kept++
		case len(blobs) == sweepMost || g.young(d):
			g.report.Kept++
			g.report.Spared++
		default:
			blobs = append(blobs, d)
		}
		return nil
	})
	if err != nil && !missing(err) {
		return err
	}
	return errors.Join(g.sweepShared(ctx, blobs, func(goes func(digest.Digest) bool) error {
		return g.sweepLinks(ctx, names, all, goes)
	}), s.forget(ctx, g.before))
}

// purgeOwn removes uploads to this server that were begun and left, unless it is
// too busy at the moment.
func (g *garbage) purgeOwn(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(g.registry.dir, repositories)); err != nil {
		return nil //nolint:nilerr // nothing was ever uploaded here
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	unlock, err := g.registry.lock(short, true)
	if err != nil {
		return ctx.Err()
	}
	defer unlock()
	return g.purge(ctx, g.registry.shared.disk)
}

// sweepMost is how many blobs a sweep removes: what is condemned is so for a
// short time.
const sweepMost = 1000

// sweepShared condemns blobs, and removes those that nobody claims.
func (g *garbage) sweepShared(ctx context.Context, blobs []digest.Digest, links func(goes func(digest.Digest) bool) error) (err error) {
	s, sweep, began := g.registry.shared, rand.Text(), time.Now()
	limit := sweepAtMost / 2
	before := g.before
	if g.all {
		before = began.Add(sweepAtMost) // nothing is young
	}
	goes := map[digest.Digest]bool{}
	for _, d := range blobs {
		may, ended, condemnErr := s.condemn(ctx, d, sweep, before)
		defer func() { err = errors.Join(err, ended()) }()
		if condemnErr != nil {
			return condemnErr
		}
		if goes[d] = may && time.Since(began) < limit; !goes[d] {
			g.report.Kept++
			g.report.Spared++
		}
	}
	if err := links(func(d digest.Digest) bool { return goes[d] }); err != nil {
		return err
	}
	for _, d := range blobs {
		if !goes[d] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Since(began) > limit {
			g.report.Kept++
			g.report.Spared++
			continue
		}
		size := int64(0)
		if o, err := s.objects.Stat(ctx, strings.TrimPrefix(blobKey(d), "/")); err == nil {
			size = o.Size
		}
		if err := g.vacuum.RemoveBlob(string(d)); err != nil && !missing(err) {
			return err
		}
		g.report.Blobs++
		g.report.Bytes += size
	}
	return nil
}

func (g *garbage) youngShared(d digest.Digest) bool {
	if g.all {
		return false
	}
	ctx := context.Background()
	o, err := g.registry.shared.objects.Stat(ctx, strings.TrimPrefix(blobKey(d), "/"))
	if err == nil && !o.Modified.After(g.before) {
		touched, err := g.registry.shared.touched(ctx, d, g.before)
		return err != nil || touched
	}
	return true
}
