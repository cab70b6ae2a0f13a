package datafs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/berth-run/berth"
)

// Tree is a directory that is served, and all below it. Nothing outside of it
// is ever reached: symlinks that lead out of it are not followed.
type Tree struct {
	Root     *os.Root // of this request: one of before a mount that came back leads nowhere
	Seen     string   // where tasks have it
	ReadOnly bool
}

// seen is a path as tasks see it.
func (t *Tree) seen(relative string) string { return path.Join(t.Seen, relative) }

// entry describes what Lstat or Stat told of a path.
func (t *Tree) entry(relative string, info fs.FileInfo) berth.DataEntry {
	e := berth.DataEntry{Path: t.seen(relative), Mode: fmt.Sprintf("%04o", info.Mode().Perm()), ModifiedAt: info.ModTime().UTC()}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		e.Type, e.Size = berth.DataFile, info.Size()
	case mode.IsDir():
		e.Type = berth.DataDirectory
	case mode&fs.ModeSymlink != 0:
		e.Type = berth.DataSymlink
		if target, err := t.Root.Readlink(relative); err == nil {
			e.Target = &target
		}
	default:
		e.Type = berth.DataOther
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		e.UID, e.GID = int(sys.Uid), int(sys.Gid)
	}
	return e
}

// List yields a file itself, or the entries of a directory by name; with
// recursive all that is below it, a directory before what is in it. Symlinks
// are followed where they are what is asked for, and nowhere else.
func (t *Tree) List(relative string, recursive bool, yield func(berth.DataEntry) error) error {
	info, err := t.Root.Stat(relative)
	if err != nil {
		if link, linkErr := t.Root.Lstat(relative); linkErr == nil && link.Mode()&fs.ModeSymlink != 0 {
			return yield(t.entry(relative, link)) // one that leads nowhere, or out
		}
		return explained(t.seen(relative), err)
	}
	if !info.IsDir() {
		return yield(t.entry(relative, info))
	}
	return t.list(relative, recursive, yield)
}

func (t *Tree) list(relative string, recursive bool, yield func(berth.DataEntry) error) error {
	names, err := t.names(relative)
	if err != nil {
		return explained(t.seen(relative), err)
	}
	for _, name := range names {
		below := path.Join(relative, name)
		info, err := t.Root.Lstat(below)
		if os.IsNotExist(err) {
			continue // it went away meanwhile
		}
		if err != nil {
			return explained(t.seen(below), err)
		}
		if err := yield(t.entry(below, info)); err != nil {
			return err
		}
		if recursive && info.IsDir() {
			if err := t.list(below, true, yield); err != nil {
				return err
			}
		}
	}
	return nil
}

// names are what is in a directory, sorted.
func (t *Tree) names(relative string) ([]string, error) {
	entries, err := fs.ReadDir(t.Root.FS(), relative)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// Remove removes a file, a symlink itself, or an empty directory; with
// recursive a directory with all that is in it.
func (t *Tree) Remove(relative string, recursive bool) error {
	if relative == "." {
		return berth.Errorf(berth.CodeInvalid, "%s is the mount itself and can't be removed; name what is in it", t.Seen)
	}
	info, err := t.Root.Lstat(relative)
	if err != nil {
		return explained(t.seen(relative), err)
	}
	if t.ReadOnly {
		return explained(t.seen(relative), syscall.EROFS)
	}
	if !info.IsDir() || !recursive {
		err = t.Root.Remove(relative)
		if info.IsDir() && err != nil {
			err = berth.Errorf(berth.CodeInvalid, "%s is a directory that is not empty: -r removes it with all that is in it", t.seen(relative))
		}
		return explained(t.seen(relative), err)
	}
	return explained(t.seen(relative), t.Root.RemoveAll(relative))
}
