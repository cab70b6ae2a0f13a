package build

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/pack"
)

// stamp is the time of everything in an image: the first that zip files know.
var stamp = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// entry is one file of a package.
type entry struct {
	name   string // slash-separated, relative to the working directory
	source string // on this machine
	mode   fs.FileMode
	link   string
	size   int64
}

// collect finds all files of a package, in order of their names.
func collect(d *pack.Definition) ([]entry, error) {
	found := map[string]entry{}
	for _, file := range d.Files {
		source := filepath.Join(d.Dir, filepath.FromSlash(file.Path))
		err := filepath.WalkDir(source, func(at string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(d.Dir, at)
			if err != nil || rel == "." {
				return err
			}
			one, err := fileEntry(d.Dir, filepath.ToSlash(rel), at)
			if err == nil {
				found[one.name] = one
			}
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			return nil, berth.Errorf(berth.CodeInvalid, "%s:%d: files: there is no %s in %s", d.Path, file.Line, file.Path, d.Dir)
		}
		if err != nil {
			return nil, berth.Errorf(berth.CodeInvalid, "%s:%d: files: %s: %w", d.Path, file.Line, file.Path, err)
		}
	}
	// Folders above a file that is listed alone.
	for name := range found {
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			if _, ok := found[parent]; !ok {
				found[parent] = entry{name: parent, mode: fs.ModeDir | 0o755}
			}
		}
	}
	if program, ok := found[path.Clean(d.Package.Entrypoint.Exec)]; ok && program.mode.IsRegular() {
		program.mode |= 0o111
		found[program.name] = program
	}
	entries := make([]entry, 0, len(found))
	for _, e := range found {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries, nil
}

func fileEntry(dir, name, source string) (entry, error) {
	info, err := os.Lstat(source)
	if err != nil {
		return entry{}, err
	}
	e := entry{name: name, source: source, mode: info.Mode() & (fs.ModeDir | fs.ModeSymlink | 0o777), size: info.Size()}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if e.link, err = os.Readlink(source); err != nil {
			return e, err
		}
		if filepath.IsAbs(e.link) || !filepath.IsLocal(filepath.Join(filepath.Dir(filepath.FromSlash(name)), e.link)) {
			return e, errors.New(name + " is a link to " + e.link + ", outside of the package")
		}
		e.size = 0
	case info.IsDir():
		e.size = 0
	case !info.Mode().IsRegular():
		return e, errors.New(name + " is neither a file nor a folder nor a link")
	}
	return e, nil
}

// filesLayer is the layer with a package's files in its working directory.
func filesLayer(workDir string, entries []entry) (v1.Layer, int64, error) {
	var size int64
	for _, e := range entries {
		size += e.size
	}
	layer, err := streamed(func(w *tar.Writer) error {
		if err := folders(w, workDir); err != nil {
			return err
		}
		return writeEntries(w, strings.TrimPrefix(workDir, "/"), entries)
	})
	return layer, size, err
}

// folders writes a folder and those above it.
func folders(w *tar.Writer, folder string) error {
	at := ""
	for part := range strings.SplitSeq(strings.Trim(folder, "/"), "/") {
		at = path.Join(at, part)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: at + "/", Mode: 0o755, ModTime: stamp}); err != nil {
			return err
		}
	}
	return nil
}

func writeEntries(w *tar.Writer, below string, entries []entry) error {
	for _, e := range entries {
		h := &tar.Header{Name: path.Join(below, e.name), Mode: int64(e.mode.Perm()), ModTime: stamp, Typeflag: tar.TypeReg, Size: e.size}
		switch {
		case e.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case e.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := copyFile(w, e.source, e.size); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(w io.Writer, source string, size int64) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	n, err := io.Copy(w, io.LimitReader(file, size))
	if err == nil && n < size {
		err = errors.New(source + " became shorter while it was read")
	}
	return err
}

// agentLayer is the layer with the agent, and with a package's description
// unless that is nil. Any user may leave a report beside them.
func agentLayer(program, description []byte) (v1.Layer, error) {
	return streamed(func(w *tar.Writer) error {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(agent.Dir, "/") + "/", Mode: 0o1777, ModTime: stamp}); err != nil {
			return err
		}
		for _, f := range []struct {
			path string
			mode int64
			data []byte
		}{{agent.Path, 0o755, program}, {agent.PackageFile, 0o644, description}} {
			if f.data == nil {
				continue
			}
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.path, "/"), Mode: f.mode, Size: int64(len(f.data)), ModTime: stamp}); err != nil {
				return err
			}
			if _, err := w.Write(f.data); err != nil {
				return err
			}
		}
		return nil
	})
}

// streamed makes a layer of what write writes, which is called for each
// reading of it, so that no layer is held in memory.
func streamed(write func(*tar.Writer) error) (v1.Layer, error) {
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() {
			t := tar.NewWriter(w)
			err := write(t)
			if err == nil {
				err = t.Close()
			}
			w.CloseWithError(err)
		}()
		return r, nil
	})
}
