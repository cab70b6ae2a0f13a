package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"

	"github.com/berth-run/berth/internal/objects"
)

// shared is a storage driver over an object store, in which all that is whole
// is: blobs, and the links that repositories have to them. Uploads that are in
// progress are in a directory of this server.
type shared struct {
	disk    // of uploads
	objects objects.Store
	wait    time.Duration // between looks whether a blob is still being swept
}

var _ driver.StorageDriver = shared{}

// uploading reports whether a key is of an upload in progress.
func uploading(key string) bool { return strings.Contains(key, "/_uploads") }

// object is the object of a key.
func object(key string) (string, error) {
	if key != "/" && !driver.PathRegexp.MatchString(key) {
		return "", driver.InvalidPathError{Path: key, DriverName: driverName}
	}
	return strings.TrimPrefix(key, "/"), nil
}

func (d shared) GetContent(ctx context.Context, key string) ([]byte, error) {
	if uploading(key) {
		return d.disk.GetContent(ctx, key)
	}
	name, err := object(key)
	if err != nil {
		return nil, err
	}
	data, _, err := d.objects.Get(ctx, name)
	if err != nil {
		return nil, note(ctx, failed(key, err))
	}
	return data, nil
}

func (d shared) PutContent(ctx context.Context, key string, content []byte) error {
	if uploading(key) {
		return d.disk.PutContent(ctx, key, content)
	}
	name, err := object(key)
	if err != nil {
		return err
	}
	if err := d.claim(ctx, key); err != nil {
		return err
	}
	return d.objects.Put(ctx, name, bytes.NewReader(content))
}

func (d shared) Reader(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	if uploading(key) {
		return d.disk.Reader(ctx, key, offset)
	}
	name, err := object(key)
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, driver.InvalidOffsetError{Path: key, Offset: offset, DriverName: driverName}
	}
	if offset > 0 { // no store gives what is behind an object's end
		if o, err := d.objects.Stat(ctx, name); err == nil && offset >= o.Size {
			return io.NopCloser(strings.NewReader("")), nil
		}
	}
	r, err := d.objects.Range(ctx, name, offset, -1)
	if err != nil {
		return nil, note(ctx, failed(key, err))
	}
	return r, nil
}

func (d shared) Writer(ctx context.Context, key string, appending bool) (driver.FileWriter, error) {
	if uploading(key) {
		return d.disk.Writer(ctx, key, appending)
	}
	return nil, driver.ErrUnsupportedMethod{DriverName: driverName} // all that isn't small is uploaded, and moved
}

func (d shared) Stat(ctx context.Context, key string) (driver.FileInfo, error) {
	if uploading(key) {
		return d.disk.Stat(ctx, key)
	}
	name, err := object(key)
	if err != nil {
		return nil, err
	}
	if err := d.claim(ctx, key); err != nil {
		return nil, note(ctx, err)
	}
	o, err := d.objects.Stat(ctx, name)
	if err == nil {
		return driver.FileInfoInternal{FileInfoFields: driver.FileInfoFields{Path: key, Size: o.Size, ModTime: o.Modified}}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, note(ctx, err)
	}
	for _, err := range d.objects.List(ctx, below(name), true) {
		if err != nil {
			return nil, note(ctx, err)
		}
		return driver.FileInfoInternal{FileInfoFields: driver.FileInfoFields{Path: key, IsDir: true}}, nil
	}
	return nil, driver.PathNotFoundError{Path: key, DriverName: driverName}
}

// below is what all keys in a folder begin with.
func below(name string) string {
	if name == "" {
		return ""
	}
	return name + "/"
}

func (d shared) List(ctx context.Context, key string) ([]string, error) {
	if uploading(key) {
		return d.disk.List(ctx, key)
	}
	name, err := object(key)
	if err != nil {
		return nil, err
	}
	keys := []string{}
	for o, err := range d.objects.List(ctx, below(name), true) {
		if err != nil {
			return nil, note(ctx, err)
		}
		if found := path.Join("/", strings.TrimSuffix(o.Key, "/")); driver.PathRegexp.MatchString(found) {
			keys = append(keys, found)
		}
	}
	if len(keys) == 0 && name != "" {
		return nil, driver.PathNotFoundError{Path: key, DriverName: driverName}
	}
	return keys, nil
}

// Move makes an upload that is whole an object. Its name is its content, so
// whoever stores it again changes nothing.
func (d shared) Move(ctx context.Context, from, to string) error {
	switch {
	case uploading(from) && uploading(to):
		return d.disk.Move(ctx, from, to)
	case !uploading(from) || uploading(to):
		return driver.ErrUnsupportedMethod{DriverName: driverName}
	}
	name, err := object(to)
	if err != nil {
		return err
	}
	upload, err := d.disk.Reader(ctx, from, 0)
	if err != nil {
		return err
	}
	defer upload.Close()
	if err := d.claim(ctx, to); err != nil {
		return err
	}
	if err := d.objects.Put(ctx, name, upload); err != nil {
		return err
	}
	return d.disk.Delete(ctx, from)
}

func (d shared) Delete(ctx context.Context, key string) error {
	if uploading(key) {
		return d.disk.Delete(ctx, key)
	}
	name, err := object(key)
	if err != nil {
		return err
	}
	found := false
	if _, err := d.objects.Stat(ctx, name); err == nil {
		found = true
		if err := d.objects.Delete(ctx, name); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var keys []string
	for o, err := range d.objects.List(ctx, below(name), false) {
		if err != nil {
			return err
		}
		keys = append(keys, o.Key)
	}
	for _, key := range keys {
		if err := d.objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	if !found && len(keys) == 0 {
		return driver.PathNotFoundError{Path: key, DriverName: driverName}
	}
	return nil
}

func (shared) RedirectURL(*http.Request, string) (string, error) { return "", nil }

func (d shared) Walk(ctx context.Context, key string, f driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	return driver.WalkFallback(ctx, d, key, f, options...)
}
