// Package registry is the image registry inside of Berth: CNCF distribution as
// an http.Handler over a folder. It listens nowhere and authorises nobody;
// whoever mounts it does. Packages live in it as images, and nothing else.
package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"

	"github.com/berth-run/berth"
)

// Registry serves the distribution API, version 2, at /v2/.
type Registry struct {
	dir    string
	app    *handlers.App
	driver driver.StorageDriver
	stop   context.CancelFunc

	mu        sync.RWMutex // held for writing while it sweeps: then nothing is pushed
	clock     sync.Mutex
	lastWrite time.Time
	dirty     bool // something was deleted since the last sweep
}

var quiet sync.Once

// Open returns the registry in a folder, which is made when it is missing.
func Open(dir string) (r *Registry, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, berth.Errorf(berth.CodeForbidden, "cannot make the registry's folder: %w", err)
	}
	// distribution logs through logrus' own logger; what matters of it comes
	// back as an answer.
	quiet.Do(func() { logrus.SetOutput(io.Discard) })
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem":  configuration.Parameters{"rootdirectory": dir},
			"delete":      configuration.Parameters{"enabled": true},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": true, "age": "24h", "interval": "24h", "dryrun": false}},
		},
	}
	config.HTTP.Secret = hex.EncodeToString(secret[:])
	config.HTTP.RelativeURLs = true // it doesn't know by which names it is reached
	config.Catalog.MaxEntries = 1000
	ctx, stop := context.WithCancel(context.Background())
	defer func() {
		if p := recover(); p != nil { // distribution's way to say that a configuration is wrong
			stop()
			r, err = nil, berth.Errorf(berth.CodeInternal, "the registry can't be opened: %v", p)
		}
	}()
	r = &Registry{dir: dir, app: handlers.NewApp(ctx, config), driver: filesystem.New(filesystem.DriverParameters{RootDirectory: dir, MaxThreads: 100}), stop: stop, lastWrite: time.Now()}
	return r, nil
}

// Close ends what runs in the background.
func (r *Registry) Close() error {
	err := r.app.Shutdown()
	r.stop()
	return err
}

// ServeHTTP answers one request. A push that finds the disk full is told so
// with status 507.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	switch request.Method {
	case http.MethodGet, http.MethodHead:
		r.app.ServeHTTP(w, request)
		return
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.clock.Lock()
	r.lastWrite = time.Now()
	r.dirty = r.dirty || request.Method == http.MethodDelete
	r.clock.Unlock()
	if free, err := freeBytes(r.dir); err == nil && (free < minFree || request.ContentLength > 0 && free < uint64(request.ContentLength)+minFree) && request.Method != http.MethodDelete {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInsufficientStorage)
		_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"the registry's disk is full"}]}`)
		return
	}
	r.app.ServeHTTP(w, request)
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

// ErrBusy says that something was pushed a short while ago, and blobs whose
// manifest is still to come could be taken for garbage.
var ErrBusy = errors.New("something was pushed a short while ago")

// Sweep frees the blobs that no manifest refers to. Nothing is pushed
// meanwhile; ErrBusy where something was within the time before.
func (r *Registry) Sweep(ctx context.Context, unwritten time.Duration) (freed int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock.Lock()
	since := time.Since(r.lastWrite)
	r.clock.Unlock()
	if since < unwritten {
		return 0, ErrBusy
	}
	namespace, err := storage.NewRegistry(ctx, r.driver, storage.EnableDelete)
	if err != nil {
		return 0, fmt.Errorf("sweep the registry: %w", err)
	}
	before, err := freeBytes(r.dir)
	if err != nil {
		return 0, err
	}
	err = storage.MarkAndSweep(ctx, r.driver, namespace, storage.GCOpts{Quiet: true})
	var none driver.PathNotFoundError
	if err != nil && !errors.As(err, &none) { // nothing was ever pushed
		return 0, fmt.Errorf("sweep the registry: %w", err)
	}
	r.dirty = false
	after, err := freeBytes(r.dir)
	return int64(after) - int64(before), err
}

// Keep sweeps whenever something was deleted and nothing is being pushed,
// until the context ends.
func (r *Registry) Keep(ctx context.Context, report func(freed int64, err error)) {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.clock.Lock()
		dirty := r.dirty
		r.clock.Unlock()
		if !dirty {
			continue
		}
		if freed, err := r.Sweep(ctx, time.Hour); !errors.Is(err, ErrBusy) {
			report(freed, err)
		}
	}
}
