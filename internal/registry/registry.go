// Package registry is the image registry inside of Berth: CNCF distribution as
// an http.Handler over a folder, or over an object store that servers share. It listens nowhere and authorises nobody;
// whoever mounts it does. Packages live in it as images, and nothing else.
package registry

import (
	"context"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage/driver"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/objects"
)

// Registry serves the images of a directory. Several processes may have the
// same directory open; see lock.go.
type Registry struct {
	dir    string
	shared *shared // nil where all is in the directory
	driver driver.StorageDriver
	app    *handlers.App
}

// Open opens the registry of a directory, which is made where it is missing.
// Close it to let go of what it holds in memory.
func Open(dir string) (*Registry, error) {
	return open(dir, disk{dir})
}

// OpenShared opens the registry that is in an object store, which several
// servers have open at once. Uploads in progress are in a directory of each.
func OpenShared(dir string, store objects.Store) (*Registry, error) {
	s := &shared{disk: disk{dir}, objects: store}
	r, err := open(dir, *s)
	if err == nil {
		r.shared = s
	}
	return r, err
}

func open(dir string, storage driver.StorageDriver) (r *Registry, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot make the registry's folder: %w", err)
	}
	silence()
	r = &Registry{dir: dir, driver: watched{storage}}
	// The application panics on a setting that it can't use. There is none
	// that depends on anything but this code, so that would be our fault.
	r.app = handlers.NewApp(context.Background(), settings(r.driver))
	return r, nil
}

func settings(storage driver.StorageDriver) *configuration.Configuration {
	c := &configuration.Configuration{Storage: configuration.Storage{
		driverName:    configuration.Parameters{"driver": storage},
		"delete":      configuration.Parameters{"enabled": true},
		"redirect":    configuration.Parameters{"disable": true},
		"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}}, // GarbageCollect does it
	}}
	c.Catalog.MaxEntries = 1000 // a page
	c.HTTP.RelativeURLs = true  // it doesn't know what it is mounted as
	return c
}

// Close ends what the registry does in the background.
func (r *Registry) Close() error { return r.app.Shutdown() }

func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	failure := &failure{}
	request = request.WithContext(context.WithValue(request.Context(), failureKey{}, failure))
	// A body that streams in may take hours and changes nothing that a sweep
	// looks at; everything else that writes waits until the sweep is over.
	if request.Method != http.MethodGet && (request.Method != http.MethodHead || strings.Contains(request.URL.Path, "/blobs/")) {
		request = request.WithContext(writing(request.Context()))
	}
	if request.Method != http.MethodGet && request.Method != http.MethodPatch {
		unlock, err := r.lock(request.Context(), false)
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the registry is being swept: "+err.Error())
			return
		}
		defer unlock()
		if r.shared == nil {
			r.touch(request)
		}
	}
	switch free, err := freeBytes(r.dir); request.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		if err == nil && (free < minFree || request.ContentLength > 0 && free < uint64(request.ContentLength)+minFree) {
			refuse(w, http.StatusInsufficientStorage, "STORE_FULL", full)
			return
		}
	case http.MethodDelete:
		r.litter(request.Context())
	}
	answer := &answer{ResponseWriter: w, failure: failure}
	if storedAt, ok := r.storedAt(request); ok {
		w.Header().Set("Last-Modified", storedAt.UTC().Format(http.TimeFormat))
	}
	r.app.ServeHTTP(answer, request)
}

// minFree is left free for the store, which shares the disk: outcomes of tasks
// go before packages.
const minFree = 32 << 20

func freeBytes(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// touch marks a blob that a push asks for as young: the push will not send it
// again, so it has to be there until the push's manifest is.
func (r *Registry) touch(request *http.Request) {
	digest := request.URL.Query().Get("mount")
	if digest == "" && request.Method == http.MethodHead {
		if _, after, found := strings.Cut(request.URL.Path, "/blobs/"); found {
			digest = after
		}
	}
	if path, ok := r.blobPath(digest); ok {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // of a blob that isn't there
	}
}

// storedAt is when the manifest that is asked for by digest was stored.
func (r *Registry) storedAt(request *http.Request) (time.Time, bool) {
	name, reference, found := strings.Cut(strings.TrimPrefix(request.URL.Path, "/v2/"), "/manifests/")
	if !found || request.Method != http.MethodGet && request.Method != http.MethodHead || !filepath.IsLocal(name) || !filepath.IsLocal(reference) {
		return time.Time{}, false
	}
	key := path.Join(repositories, name, "_manifests", "tags", reference, "current", "link")
	if algorithm, hex, ok := strings.Cut(reference, ":"); ok {
		key = path.Join(repositories, name, "_manifests", "revisions", algorithm, hex, "link")
	}
	if r.shared != nil {
		o, err := r.shared.objects.Stat(request.Context(), key)
		return o.Modified, err == nil
	}
	info, err := os.Stat(filepath.Join(r.dir, filepath.FromSlash(key)))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// Where distribution keeps things below its root: a format that is the same
// since 2015.
const (
	root         = "docker/registry/v2"
	repositories = root + "/repositories"
)

// blobPath is the file of a blob's content.
func (r *Registry) blobPath(digest string) (string, bool) {
	algorithm, hex, found := strings.Cut(digest, ":")
	if !found || len(hex) < 32 || !filepath.IsLocal(algorithm) || strings.ContainsAny(hex, `/\.`) {
		return "", false
	}
	return filepath.Join(r.dir, root, "blobs", algorithm, hex[:2], hex, "data"), true
}
