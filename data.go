package berth

import (
	"io"
	"path"
	"strings"
	"time"
)

// DataEntry is one thing on the filesystem that the tasks of an infrastructure
// share. Its JSON form is the contract of -o json.
type DataEntry struct {
	Path       string    `json:"path"` // absolute, as tasks see it
	Type       DataType  `json:"type"`
	Size       int64     `json:"size"` // in bytes; of a file
	Mode       string    `json:"mode"` // permission bits, octal: 0644
	UID        int       `json:"uid"`
	GID        int       `json:"gid"`
	ModifiedAt time.Time `json:"modifiedAt"`
	Target     *string   `json:"target"` // of a symlink, as it is written
}

// DataType is the kind of a DataEntry.
type DataType string

const (
	DataFile      DataType = "file"
	DataDirectory DataType = "directory"
	DataSymlink   DataType = "symlink"
	DataOther     DataType = "other" // a pipe, a socket, a device
)

// DataQuery names something on the shared filesystem of an infrastructure.
type DataQuery struct {
	Infrastructure string // empty: the default one
	Path           string // as tasks see it, or relative to the mount; empty: the mount itself
	Recursive      bool
}

// DataChunk is a piece of what is read from a shared filesystem.
type DataChunk struct {
	Entry *DataEntry // in the first chunk: what is read
	Data  []byte     // a file's content; of a directory a tar archive of what is in it
	End   *DataEnd   // in the last chunk: all of it was sent
}

// DataEnd says what all that was read, or written, comes to.
type DataEnd struct {
	Size    int64  // bytes of all Data
	SHA256  string // of all Data, in hexadecimal
	Skipped int    // pipes, sockets and devices of a directory, which are left out
}

// DataPut is what is to be written to the shared filesystem of an infrastructure.
type DataPut struct {
	Infrastructure string // empty: the default one
	Path           string // of what is to be there afterwards; an existing directory, or one that ends in '/', takes it in by Name
	Name           string // where Path is a directory; may be empty where it isn't
	Mode           uint32 // permission bits of a file; 0: 0644
	Directory      bool   // the content is a tar archive of what is in a directory, which must not exist yet

	// Open gives the content from its beginning. Where that can be had just
	// once, it fails the second time, and so does writing that would need it.
	Open func() (io.ReadCloser, error)
}

// DataPath returns a path on a shared filesystem relative to its mount, "." for
// the mount itself: of one as tasks see it, or one that is relative already.
// CodeInvalid for one that leads out of it.
func (d *DFS) DataPath(p string) (string, error) {
	if strings.ContainsRune(p, 0) {
		return "", Errorf(CodeInvalid, "path %s: has a NUL character", show(p))
	}
	relative := path.Clean(p)
	switch {
	case p == "":
		return ".", nil
	case relative == d.Path:
		return ".", nil
	case path.IsAbs(relative):
		below, ok := strings.CutPrefix(relative, strings.TrimSuffix(d.Path, "/")+"/")
		if !ok {
			return "", Errorf(CodeInvalid, "path %s: it is not below %s, where the shared filesystem is mounted", show(p), d.Path)
		}
		return below, nil
	case relative == "..", strings.HasPrefix(relative, "../"):
		return "", Errorf(CodeInvalid, "path %s: it leads out of the shared filesystem at %s", show(p), d.Path)
	}
	return relative, nil
}

// Seen returns a path relative to the mount as tasks see it.
func (d *DFS) Seen(relative string) string { return path.Join(d.Path, relative) }

// DataServer is what a task is that serves the shared filesystem to the control
// plane.
type DataServer struct {
	Seed string `json:"seed"` // what its token is derived from, with the store's key
}

// LabelData marks tasks that serve a shared filesystem, and says which.
const LabelData = "berth.run/data"
