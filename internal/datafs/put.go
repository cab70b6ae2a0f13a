package datafs

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/berth-run/berth"
)

// Place says where something is put: at a path, or below its name in a
// directory. A path that ends in a slash is one of a directory.
func (t *Tree) place(relative, name string, folder bool) (string, error) {
	info, err := t.Root.Stat(relative)
	inside := err == nil && info.IsDir() || folder
	if !inside {
		return relative, nil
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", berth.Errorf(berth.CodeInvalid, "%s is a directory: give the file's own path", t.seen(relative))
	}
	return path.Join(relative, name), nil
}

// Put writes what a reader gives, up to its end, to a file: beside it at first,
// and in its place when all of it is there and on the disk. Missing directories
// on the way are made. Verify is asked before that whether all of it came.
func (t *Tree) Put(relative string, mode fs.FileMode, content io.Reader, verify func() error) (berth.DataEntry, error) {
	var none berth.DataEntry
	if err := t.writable(relative); err != nil {
		return none, err
	}
	if info, err := t.Root.Stat(relative); err == nil && info.IsDir() {
		return none, berth.Errorf(berth.CodeInvalid, "%s is a directory: give the file's own path", t.seen(relative))
	}
	if mode == 0 {
		mode = 0o644
	}
	temporary := beside(relative)
	file, err := t.Root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm())
	if err != nil {
		return none, explained(t.seen(relative), err)
	}
	done := false
	defer func() {
		if !done {
			_ = file.Close()
			_ = t.Root.Remove(temporary)
		}
	}()
	if _, err := io.CopyBuffer(struct{ io.Writer }{file}, content, make([]byte, bufferSize)); err != nil {
		return none, t.broken(relative, err)
	}
	if err := verify(); err != nil {
		return none, err
	}
	err = file.Chmod(mode.Perm()) // the umask had its say before
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = t.Root.Rename(temporary, relative)
	}
	if err != nil {
		return none, explained(t.seen(relative), err)
	}
	done = true
	return t.made(relative)
}

// PutTree unpacks a tar archive as a new directory: beside it at first, and in
// its place when all of it is there.
func (t *Tree) PutTree(relative string, archive io.Reader, verify func() error) (berth.DataEntry, error) {
	var none berth.DataEntry
	if err := t.writable(relative); err != nil {
		return none, err
	}
	if _, err := t.Root.Lstat(relative); err == nil {
		return none, berth.Errorf(berth.CodeConflict, "%s exists already: remove it first (berth data rm -r), or choose another name", t.seen(relative))
	}
	temporary := beside(relative)
	if err := t.Root.Mkdir(temporary, 0o755); err != nil {
		return none, explained(t.seen(relative), err)
	}
	done := false
	defer func() {
		if !done {
			_ = t.Root.RemoveAll(temporary)
		}
	}()
	below, err := t.Root.OpenRoot(temporary)
	if err != nil {
		return none, explained(t.seen(relative), err)
	}
	defer below.Close()
	if err := Unpack(below, archive); err != nil {
		return none, t.broken(relative, err)
	}
	if err := verify(); err != nil {
		return none, err
	}
	if err := t.Root.Rename(temporary, relative); err != nil {
		return none, explained(t.seen(relative), err)
	}
	done = true
	return t.made(relative)
}

// made is the entry of what was put.
func (t *Tree) made(relative string) (berth.DataEntry, error) {
	info, err := t.Root.Stat(relative)
	if err != nil {
		return berth.DataEntry{}, explained(t.seen(relative), err)
	}
	return t.entry(relative, info), nil
}

// writable sees to it that something can be put at a path.
func (t *Tree) writable(relative string) error {
	if relative == "." {
		return berth.Errorf(berth.CodeInvalid, "%s is the mount itself: name what is to be in it", t.Seen)
	}
	if t.ReadOnly {
		return explained(t.seen(relative), syscall.EROFS)
	}
	err := t.Root.MkdirAll(path.Dir(relative), 0o755)
	if errors.Is(err, fs.ErrExist) {
		err = syscall.ENOTDIR
	}
	return explained(t.seen(path.Dir(relative)), err)
}

// broken tells an error of the filesystem from one of who sends.
func (t *Tree) broken(relative string, err error) error {
	var told *berth.Error
	var onDisk *fs.PathError
	if errors.As(err, &told) || errors.As(err, &onDisk) {
		return explained(t.seen(relative), err)
	}
	return berth.Errorf(berth.CodeUnavailable, "%s: what is to be written did not come whole: %w", t.seen(relative), err)
}

// beside is a name that nobody else uses, in the same directory.
func beside(relative string) string {
	return path.Join(path.Dir(relative), ".berth-put-"+rand.Text())
}

// bufferSize is that of copies: a FUSE filesystem takes 128 KiB to 1 MiB at once.
const bufferSize = 1 << 20
