package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"syscall"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"

	"github.com/berth-run/berth"
)

// driverName is what distribution finds our storage by. It makes drivers by
// name from parameters; ours is a parameter already.
const driverName = "berth"

type given struct{}

func (given) Create(_ context.Context, parameters map[string]any) (driver.StorageDriver, error) {
	d, ok := parameters["driver"].(driver.StorageDriver)
	if !ok {
		return nil, errors.New("no storage driver was given")
	}
	return d, nil
}

func init() { factory.Register(driverName, given{}) }

// failure is the first write that the disk refused during a request.
// Distribution answers "unknown error" to all of them, whatever the cause.
type failure struct {
	mu  sync.Mutex
	err error
}

type failureKey struct{}

func note(ctx context.Context, err error) error {
	if f, ok := ctx.Value(failureKey{}).(*failure); ok && err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err == nil {
			f.err = err
		}
	}
	return err
}

const full = "the registry's disk is full"

// explain says what a person can do about a refused write.
func (f *failure) explain() (status int, code, message string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err == nil:
		return 0, "", ""
	case refusedBy(f.err, syscall.ENOSPC), refusedBy(f.err, syscall.EDQUOT):
		return http.StatusInsufficientStorage, "STORE_FULL", full
	case refusedBy(f.err, syscall.EROFS), refusedBy(f.err, syscall.EACCES), refusedBy(f.err, syscall.EPERM):
		return http.StatusInternalServerError, "STORE_REFUSED", "the registry may not write into its folder"
	}
	switch text, code := storeError(f.err); code {
	case berth.CodeUnavailable:
		return http.StatusServiceUnavailable, "UNAVAILABLE", "the registry's storage: " + text
	case berth.CodeForbidden, berth.CodeInvalid, berth.CodeExhausted:
		return http.StatusInternalServerError, "STORE_REFUSED", "the registry's storage: " + text
	}
	return 0, "", ""
}

// refusedBy looks for an error number also inside of the driver's own error,
// which does not unwrap.
func refusedBy(err error, number syscall.Errno) bool {
	if errors.Is(err, number) {
		return true
	}
	var wrapped driver.Error
	return errors.As(err, &wrapped) && errors.Is(wrapped.Detail, number)
}

// storeError finds what an object store said.
func storeError(err error) (string, berth.ErrorCode) {
	var said *berth.Error
	var wrapped driver.Error
	if !errors.As(err, &said) && errors.As(err, &wrapped) {
		errors.As(wrapped.Detail, &said)
	}
	if said == nil {
		return "", ""
	}
	return said.Error(), said.Code
}

// watched is a storage driver that notes what could not be written.
type watched struct{ driver.StorageDriver }

func (d watched) PutContent(ctx context.Context, path string, content []byte) error {
	return note(ctx, d.StorageDriver.PutContent(ctx, path, content))
}

func (d watched) Move(ctx context.Context, from, to string) error {
	return note(ctx, d.StorageDriver.Move(ctx, from, to))
}

func (d watched) Delete(ctx context.Context, path string) error {
	err := d.StorageDriver.Delete(ctx, path)
	var missing driver.PathNotFoundError
	if errors.As(err, &missing) {
		return err
	}
	return note(ctx, err)
}

func (d watched) Writer(ctx context.Context, path string, appending bool) (driver.FileWriter, error) {
	w, err := d.StorageDriver.Writer(ctx, path, appending)
	if err != nil {
		return nil, note(ctx, err)
	}
	return watchedWriter{w, ctx}, nil
}

type watchedWriter struct {
	driver.FileWriter
	ctx context.Context
}

func (w watchedWriter) Write(p []byte) (int, error) {
	n, err := w.FileWriter.Write(p)
	return n, note(w.ctx, err)
}

func (w watchedWriter) Close() error { return note(w.ctx, w.FileWriter.Close()) }

func (w watchedWriter) Commit(ctx context.Context) error {
	return note(w.ctx, w.FileWriter.Commit(ctx))
}

// answer puts our reason in the place of distribution's error where a write
// was refused.
type answer struct {
	http.ResponseWriter
	failure  *failure
	began    bool
	replaced bool
}

func (a *answer) WriteHeader(status int) {
	if a.began {
		return
	}
	a.began = true
	if status >= http.StatusBadRequest {
		if status, code, message := a.failure.explain(); status != 0 {
			a.replaced = true
			refuse(a.ResponseWriter, status, code, message)
			return
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if !a.began {
		a.WriteHeader(http.StatusOK)
	}
	if a.replaced {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// refuse answers with an error as the protocol writes them.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type reason struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Del("Content-Length")
	w.Header().Del("Last-Modified")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]reason{"errors": {{code, message}}})
}
