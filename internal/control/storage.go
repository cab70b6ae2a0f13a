package control

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/bucket"
	"github.com/berth-run/berth/internal/logs"
	"github.com/berth-run/berth/internal/objects"
	"github.com/berth-run/berth/internal/registry"
)

// storageName is a file of a data directory whose logs and packages are
// elsewhere: any command of the directory finds them there too.
const storageName = "storage"

// storage is where logs and packages are: a directory, or a bucket, of which a
// server has a part on the way in its data directory.
type storage struct {
	dir    string
	bucket *bucket.Bucket // nil: in the directory
}

// openStorage finds out where logs and packages are, and sees whether that can
// be used.
func openStorage(ctx context.Context, c Config) (*storage, error) {
	path := filepath.Join(c.DataDir, storageName)
	where := c.Storage
	if where == "" {
		switch text, err := os.ReadFile(path); {
		case err == nil:
			where = strings.TrimSpace(string(text))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, berth.Errorf(berth.CodeForbidden, "cannot use the data directory: %w", err)
		}
	}
	switch {
	case where == "" || where == c.DataDir:
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, berth.Errorf(berth.CodeForbidden, "cannot use the data directory: %w", err)
		}
		return &storage{dir: c.DataDir}, nil
	case !strings.Contains(where, "://"):
		return &storage{dir: where}, remember(path, where)
	}
	b, err := bucket.Open(ctx, where)
	if err != nil {
		return nil, err
	}
	if !b.Encrypted() {
		c.Log.Warn("what is stored travels unencrypted: the storage's endpoint is http://", "storage", b.String())
	}
	if err := remember(path, where); err != nil {
		b.Close()
		return nil, err
	}
	return &storage{dir: c.DataDir, bucket: b}, nil
}

// remember notes where the storage is.
func remember(path, where string) error {
	if err := os.WriteFile(path, []byte(where+"\n"), 0o600); err != nil {
		return berth.Errorf(berth.CodeForbidden, "cannot use the data directory: %w", err)
	}
	return nil
}

func (s *storage) close() {
	if s.bucket != nil {
		_ = s.bucket.Close()
	}
}

// openLogs opens the logs of an instance.
func (s *storage) openLogs(c Config, instance string) (*logs.Store, error) {
	dir := filepath.Join(s.dir, "logs")
	if s.bucket == nil {
		return logs.Open(dir)
	}
	return logs.OpenShared(dir, logs.Shared{Objects: objects.Under(s.bucket, "logs/"+instance+"/"), Log: c.Log})
}

// openRegistry opens the registry.
func (s *storage) openRegistry() (*registry.Registry, error) {
	dir := filepath.Join(s.dir, "registry")
	if s.bucket == nil {
		return registry.Open(dir)
	}
	return registry.OpenShared(dir, objects.Under(s.bucket, "registry/"))
}
