package config

import (
	"os"
	"path/filepath"

	"github.com/berth-run/berth"
)

// writeAtomically replaces infra.yml so that nobody ever reads half of it. The
// mode of a file that exists stays; a new one is 0600. A link stays a link.
func writeAtomically(path string, data []byte) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	mode := os.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return replaceFile(path, data, mode)
}

// WriteSecret replaces a file beside infra.yml with one that its owner alone
// may read, so that nobody ever reads half of it.
func WriteSecret(path string, data []byte) error { return replaceFile(path, data, 0o600) }

func replaceFile(path string, data []byte, mode os.FileMode) error {
	failed := func(err error) error {
		return berth.Errorf(berth.CodeInvalid, "%s can't be written, and is as it was: %w", filepath.Base(path), err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return failed(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return failed(err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails once it is renamed, which is fine
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return failed(err)
	}
	return nil
}
