package datafs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/berth-run/berth"
)

// Pack writes what is in a directory as a tar archive: directories, files and
// symlinks, as they are. It counts what it leaves out: pipes, sockets, devices.
func Pack(root *os.Root, to io.Writer) (skipped int, err error) {
	out := tar.NewWriter(to)
	buffer := make([]byte, bufferSize)
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went away meanwhile
		}
		if err != nil {
			return err
		}
		header := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX}
		switch mode := info.Mode(); {
		case mode.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, name+"/"
		case mode&fs.ModeSymlink != 0:
			header.Typeflag = tar.TypeSymlink
			if header.Linkname, err = root.Readlink(name); err != nil {
				return err
			}
		case mode.IsRegular():
			header.Typeflag = tar.TypeReg
			return packFile(root, name, header, out, buffer)
		default:
			skipped++
			return nil
		}
		return out.WriteHeader(header)
	})
	if err == nil {
		err = out.Close()
	}
	return skipped, err
}

func packFile(root *os.Root, name string, header *tar.Header, out *tar.Writer, buffer []byte) error {
	file, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it went away meanwhile
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{out}, io.LimitReader(struct{ io.Reader }{file}, header.Size), buffer)
	if err == nil && n < header.Size {
		err = berth.Errorf(berth.CodeConflict, "%s became shorter while it was read: whoever writes it should have ended", name)
	}
	return err
}

// Unpack makes in a directory what a tar archive holds. Nothing outside of the
// directory is written, whatever the archive says.
func Unpack(root *os.Root, archive io.Reader) error {
	in := tar.NewReader(archive)
	buffer := make([]byte, bufferSize)
	var folders []*tar.Header
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(header.Name)
		if name == "." {
			continue
		}
		if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") {
			return berth.Errorf(berth.CodeInvalid, "the archive has %q, which leads out of the directory", header.Name)
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		mode := fs.FileMode(header.Mode).Perm()
		switch header.Typeflag {
		case tar.TypeDir:
			// Its own mode comes last: it may be one that lets nobody write.
			folders = append(folders, header)
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			err = root.Symlink(header.Linkname, name)
		case tar.TypeReg:
			err = unpackFile(root, name, mode, header, in, buffer)
		default:
			err = berth.Errorf(berth.CodeInvalid, "the archive has %q of type %q; there are files, directories and symlinks", header.Name, header.Typeflag)
		}
		if err != nil {
			return err
		}
	}
	// What is behind the archive's end is part of what is summed up.
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- {
		name := path.Clean(folders[i].Name)
		if err := root.Chmod(name, fs.FileMode(folders[i].Mode).Perm()); err != nil {
			return err
		}
		_ = root.Chtimes(name, folders[i].ModTime, folders[i].ModTime) // not all filesystems take it
	}
	return nil
}

func unpackFile(root *os.Root, name string, mode fs.FileMode, header *tar.Header, in io.Reader, buffer []byte) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o200)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{file}, struct{ io.Reader }{in}, buffer)
	if err == nil {
		err = file.Chmod(mode)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		_ = root.Chtimes(name, header.ModTime, header.ModTime)
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}
