package workflow

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"time"
)

// Files are the texts of a program's files by their paths, with slashes, as a
// file system that [Load] reads.
type Files map[string][]byte

// Open opens a file; there are no directories.
func (f Files) Open(name string) (fs.File, error) {
	text, ok := f[name]
	if !ok || !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &openFile{fileInfo{path.Base(name), int64(len(text))}, bytes.NewReader(text)}, nil
}

// openFile is a file that is read.
type openFile struct {
	info fileInfo
	io.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

// fileInfo is what is known of a file of a program.
type fileInfo struct {
	name string
	size int64
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() fs.FileMode  { return 0o444 }
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }
