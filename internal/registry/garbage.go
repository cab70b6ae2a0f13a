package registry

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth"
)

// Collection says what GarbageCollect may remove. The zero value is what is
// safe at any time.
type Collection struct {
	// MinAge spares what was stored, or asked for by a push, more recently: a
	// push sends its blobs before the manifest that refers to them. 0: an
	// hour. Negative: spares nothing, for when nobody pushes.
	MinAge time.Duration

	// Untagged also removes manifests that no tag leads to. Tasks name
	// packages by digest, so a version that was pushed over may be in use.
	Untagged bool
}

// Report is what GarbageCollect removed.
type Report struct {
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
	Manifests int   `json:"manifests"` // untagged ones
	Uploads   int   `json:"uploads"`   // that were begun and left
	Kept      int   `json:"kept"`      // blobs that stay
	Spared    int   `json:"spared"`    // of these, the ones that are garbage and young
}

// GarbageCollect removes blobs that no manifest refers to. Requests that write
// wait while it does; a push that is under way finds all that it was told is
// there.
func (r *Registry) GarbageCollect(ctx context.Context, c Collection) (Report, error) {
	if c.MinAge == 0 {
		c.MinAge = time.Hour
	}
	g := &garbage{registry: r, before: time.Now().Add(-max(c.MinAge, 0)), all: c.MinAge < 0, untagged: c.Untagged,
		marked: map[digest.Digest]bool{}, vacuum: storage.NewVacuum(ctx, r.driver)}
	var err error
	if r.shared != nil {
		err = g.collectShared(ctx)
	} else {
		err = g.collectAlone(ctx)
	}
	if err != nil {
		return g.report, berth.Errorf(cmp.Or(berth.CodeOf(err), berth.CodeInternal), "sweep the registry: %w", err)
	}
	return g.report, nil
}

// littered reports whether there may be garbage: also a registry that is open
// for a moment at a time is swept, and one without garbage isn't looked through.
func (r *Registry) littered(ctx context.Context) bool {
	if r.shared != nil {
		_, err := r.shared.objects.Stat(ctx, litterMark)
		return err == nil
	}
	_, err := os.Stat(r.litterFile())
	return err == nil
}

func (r *Registry) litterFile() string { return filepath.Join(r.dir, "garbage") }

// litter notes that there may be garbage. What isn't swept now is with the next
// removal.
func (r *Registry) litter(ctx context.Context) {
	if r.shared != nil {
		_ = r.shared.objects.Put(ctx, litterMark, strings.NewReader(""))
		return
	}
	_ = os.WriteFile(r.litterFile(), nil, 0o600)
}

// Keep collects garbage at once and from then on, whenever something was
// removed, until the context ends. It reports what it did.
func (r *Registry) Keep(ctx context.Context, report func(Report, error)) {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		if r.littered(ctx) {
			if done, err := r.GarbageCollect(ctx, Collection{}); ctx.Err() == nil {
				report(done, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

type garbage struct {
	registry *Registry
	before   time.Time
	all      bool
	untagged bool
	marked   map[digest.Digest]bool
	vacuum   storage.Vacuum
	report   Report
}

// collectAlone collects while nobody writes.
func (g *garbage) collectAlone(ctx context.Context) error {
	unlock, err := g.registry.lock(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(g.registry.dir, repositories)); errors.Is(err, fs.ErrNotExist) {
		os.Remove(g.registry.litterFile())
		return nil // nothing was ever pushed
	}
	if err := g.purge(ctx, g.registry.driver); err != nil {
		return err
	}
	names, all, err := g.markAll(ctx)
	if err != nil {
		return err
	}
	if err := g.sweepLinks(ctx, names, all, func(d digest.Digest) bool { return !g.marked[d] && !g.young(d) }); err != nil {
		return err
	}
	if err := g.sweepBlobs(ctx, names); err != nil {
		return err
	}
	if g.report.Spared == 0 {
		os.Remove(g.registry.litterFile())
	}
	return nil
}

// purge removes uploads that were begun and left.
func (g *garbage) purge(ctx context.Context, uploads driver.StorageDriver) error {
	purged, errs := storage.PurgeUploads(ctx, uploads, g.before, true)
	g.report.Uploads = len(purged)
	return errors.Join(errs...)
}

// markAll finds what all manifests refer to, and which repositories there are.
func (g *garbage) markAll(ctx context.Context) (distribution.Namespace, []reference.Named, error) {
	names, err := storage.NewRegistry(ctx, g.registry.driver, storage.EnableDelete)
	if err != nil {
		return nil, nil, err
	}
	var all []reference.Named
	err = names.(distribution.RepositoryEnumerator).Enumerate(ctx, func(name string) error {
		named, err := reference.WithName(name)
		all = append(all, named)
		return err
	})
	if err != nil && !missing(err) {
		return nil, nil, err
	}
	for _, name := range all {
		repository, err := names.Repository(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		if err := g.mark(ctx, repository); err != nil {
			return nil, nil, err
		}
	}
	return names, all, nil
}

// mark finds what the manifests of a repository refer to.
func (g *garbage) mark(ctx context.Context, repository distribution.Repository) error {
	manifests, err := repository.Manifests(ctx)
	if err != nil {
		return err
	}
	var revisions []digest.Digest
	err = manifests.(distribution.ManifestEnumerator).Enumerate(ctx, func(d digest.Digest) error {
		revisions = append(revisions, d)
		return nil
	})
	if err != nil && !missing(err) {
		return err
	}
	keep := map[digest.Digest]bool{}
	for _, revision := range revisions {
		root := !g.untagged || g.young(revision)
		if !root {
			tags, err := repository.Tags(ctx).Lookup(ctx, distribution.Descriptor{Digest: revision})
			if err != nil {
				return err
			}
			root = len(tags) > 0
		}
		if root {
			if err := g.follow(ctx, manifests, revision, keep); err != nil {
				return err
			}
		}
	}
	for _, revision := range revisions {
		if keep[revision] {
			continue
		}
		if err := g.vacuum.RemoveManifest(repository.Named().Name(), revision, nil); err != nil {
			return err
		}
		g.report.Manifests++
	}
	return nil
}

// follow marks a manifest and what it refers to: blobs, and for an index the
// manifests of its images.
func (g *garbage) follow(ctx context.Context, manifests distribution.ManifestService, revision digest.Digest, keep map[digest.Digest]bool) error {
	if keep[revision] {
		return nil
	}
	keep[revision], g.marked[revision] = true, true
	manifest, err := manifests.Get(ctx, revision)
	if err != nil {
		return err
	}
	for _, d := range manifest.References() {
		g.marked[d.Digest] = true
		if ok, err := manifests.Exists(ctx, d.Digest); err == nil && ok {
			if err := g.follow(ctx, manifests, d.Digest, keep); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepLinks removes repositories' claims on blobs that go, so that nobody is
// told that they are there.
func (g *garbage) sweepLinks(ctx context.Context, names distribution.Namespace, all []reference.Named, goes func(digest.Digest) bool) error {
	for _, name := range all {
		repository, err := names.Repository(ctx, name)
		if err != nil {
			return err
		}
		var links []digest.Digest
		err = repository.Blobs(ctx).(distribution.ManifestEnumerator).Enumerate(ctx, func(d digest.Digest) error {
			if goes(d) {
				links = append(links, d)
			}
			return nil
		})
		if err != nil && !missing(err) {
			return err
		}
		for _, d := range links {
			if err := g.vacuum.RemoveLayer(name.Name(), d); err != nil && !missing(err) {
				return err
			}
		}
	}
	return nil
}

func (g *garbage) sweepBlobs(ctx context.Context, names distribution.Namespace) error {
	var blobs []digest.Digest
	err := names.Blobs().Enumerate(ctx, func(d digest.Digest) error {
		switch {
		case g.marked[d]:
			g.report.Kept++
		case g.young(d):
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
	for _, d := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		var size int64
		if path, ok := g.registry.blobPath(string(d)); ok {
			if info, err := os.Stat(path); err == nil {
				size = info.Size()
			}
		}
		if err := g.vacuum.RemoveBlob(string(d)); err != nil {
			return err
		}
		g.report.Blobs++
		g.report.Bytes += size
	}
	return nil
}

// young reports whether a blob was stored or asked for after the limit.
func (g *garbage) young(d digest.Digest) bool {
	if g.registry.shared != nil {
		return g.youngShared(d)
	}
	path, ok := g.registry.blobPath(string(d))
	if g.all || !ok {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.ModTime().After(g.before)
}

func missing(err error) bool {
	var notFound driver.PathNotFoundError
	return errors.As(err, &notFound)
}
