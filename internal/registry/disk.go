package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/distribution/distribution/v3/registry/storage/driver"
)

// disk is a storage driver over a directory, in the format of distribution's
// own "filesystem". That one brings a tracing stack with gRPC, which would
// make berth a third larger.
type disk struct{ dir string }

var _ driver.StorageDriver = disk{}

func (disk) Name() string { return driverName }

// path is the file of a key.
func (d disk) path(key string) (string, error) {
	if key != "/" && !driver.PathRegexp.MatchString(key) {
		return "", driver.InvalidPathError{Path: key, DriverName: driverName}
	}
	local, err := filepath.Localize(path.Join(".", key))
	if err != nil {
		return "", driver.InvalidPathError{Path: key, DriverName: driverName}
	}
	return filepath.Join(d.dir, local), nil
}

// failed gives an error the type that distribution knows.
func failed(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return driver.PathNotFoundError{Path: key, DriverName: driverName}
	}
	return err
}

func (d disk) GetContent(_ context.Context, key string) ([]byte, error) {
	name, err := d.path(key)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, failed(key, err)
	}
	return data, nil
}

// PutContent replaces a file at once: nobody sees half of it, also after a
// power failure.
func (d disk) PutContent(_ context.Context, key string, content []byte) error {
	name, err := d.path(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d disk) Reader(_ context.Context, key string, offset int64) (io.ReadCloser, error) {
	name, err := d.path(key)
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, driver.InvalidOffsetError{Path: key, Offset: offset, DriverName: driverName}
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, failed(key, err)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (d disk) Writer(_ context.Context, key string, appending bool) (driver.FileWriter, error) {
	name, err := d.path(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	how := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if appending {
		how = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	file, err := os.OpenFile(name, how, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &diskWriter{file: file, buffer: bufio.NewWriterSize(file, 64<<10), size: info.Size()}, nil
}

func (d disk) Stat(_ context.Context, key string) (driver.FileInfo, error) {
	name, err := d.path(key)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, failed(key, err)
	}
	out := driver.FileInfoFields{Path: key, ModTime: info.ModTime(), IsDir: info.IsDir()}
	if !info.IsDir() {
		out.Size = info.Size()
	}
	return driver.FileInfoInternal{FileInfoFields: out}, nil
}

func (d disk) List(_ context.Context, key string) ([]string, error) {
	name, err := d.path(key)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, failed(key, err)
	}
	keys := []string{}
	for _, entry := range entries {
		if found := path.Join(key, entry.Name()); driver.PathRegexp.MatchString(found) {
			keys = append(keys, found)
		}
	}
	return keys, nil
}

func (d disk) Move(_ context.Context, from, to string) error {
	source, err := d.path(from)
	if err != nil {
		return err
	}
	target, err := d.path(to)
	if err != nil {
		return err
	}
	if _, err := os.Stat(source); err != nil {
		return failed(from, err)
	}
	dir := filepath.Dir(target)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Rename(source, target); err != nil {
		return err
	}
	return syncDir(dir)
}

func (d disk) Delete(_ context.Context, key string) error {
	name, err := d.path(key)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(name); err != nil {
		return failed(key, err)
	}
	return os.RemoveAll(name)
}

func (disk) RedirectURL(*http.Request, string) (string, error) { return "", nil }

func (d disk) Walk(ctx context.Context, key string, f driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	return driver.WalkFallback(ctx, d, key, f, options...)
}

// diskWriter writes a file that others see once it is committed: distribution
// writes uploads, and moves them when they are whole.
type diskWriter struct {
	file   *os.File
	buffer *bufio.Writer
	size   int64
	ended  string // how
}

func (w *diskWriter) open() error {
	if w.ended != "" {
		return fmt.Errorf("the file is %s", w.ended)
	}
	return nil
}

func (w *diskWriter) Write(p []byte) (int, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	n, err := w.buffer.Write(p)
	w.size += int64(n)
	return n, err
}

func (w *diskWriter) Size() int64 { return w.size }

func (w *diskWriter) Commit(context.Context) error {
	if err := w.open(); err != nil {
		return err
	}
	if err := errors.Join(w.buffer.Flush(), w.file.Sync()); err != nil {
		return err
	}
	w.ended = "committed"
	return nil
}

// Close keeps what was written also of an upload that goes on later.
func (w *diskWriter) Close() error {
	switch w.ended {
	case "closed", "cancelled":
		return w.open()
	case "committed":
		w.ended = "closed"
		return w.file.Close()
	}
	w.ended = "closed"
	return errors.Join(w.buffer.Flush(), w.file.Sync(), w.file.Close())
}

func (w *diskWriter) Cancel(context.Context) error {
	if w.ended == "closed" || w.ended == "cancelled" {
		return w.open()
	}
	w.ended = "cancelled"
	return errors.Join(w.file.Close(), os.Remove(w.file.Name()))
}
