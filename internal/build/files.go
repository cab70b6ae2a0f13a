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
	name string // slash-separated, relative to the working directory
	root string // the package's folder on this machine; the file has the same name there
	mode fs.FileMode
	link string
	size int64
}

// dataDir is Berth's own folder beside an infra.yml. It holds the packages
// that were built, and would hold itself.
const dataDir = ".berth"

// collect finds all files of a package, in order of their names. It reads
// through an os.Root, so that no link, of a folder neither, leads to a file
// outside of the package's folder.
func collect(d *pack.Definition) ([]entry, error) {
	root, err := os.OpenRoot(filepath.Clean(d.Dir))
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "%s: %w", d.Path, err)
	}
	defer root.Close()
	found := map[string]entry{}
	for _, file := range d.Files {
		err := walk(root, file.Path, func(name string) error {
			one, err := fileEntry(root, d.Dir, name)
			if err == nil {
				found[one.name] = one
			}
			return err
		})
		var at *fs.PathError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, berth.Errorf(berth.CodeInvalid, "%s:%d: files: there is no %s in %s", d.Path, file.Line, file.Path, d.Dir)
		case errors.As(err, &at):
			return nil, berth.Errorf(berth.CodeInvalid, "%s:%d: files: %s: %w", d.Path, file.Line, file.Path, at.Err)
		case err != nil:
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

// walk calls each for a file, or for a folder and all below it.
func walk(root *os.Root, path string, each func(name string) error) error {
	info, err := root.Lstat(filepath.FromSlash(path))
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return each(path) // WalkDir would go where a link leads
	}
	return fs.WalkDir(root.FS(), path, func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case e.IsDir() && e.Name() == dataDir:
			return fs.SkipDir
		}
		return each(name)
	})
}

func fileEntry(root *os.Root, dir, name string) (entry, error) {
	info, err := root.Lstat(filepath.FromSlash(name))
	if err != nil {
		return entry{}, err
	}
	e := entry{name: name, root: dir, mode: info.Mode() & (fs.ModeDir | fs.ModeSymlink | 0o777), size: info.Size()}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if e.link, err = root.Readlink(filepath.FromSlash(name)); err != nil {
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
		if err := copyFile(w, e); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(w io.Writer, e entry) error {
	file, err := os.OpenInRoot(e.root, filepath.FromSlash(e.name))
	if err != nil {
		return err
	}
	defer file.Close()
	n, err := io.Copy(w, io.LimitReader(file, e.size))
	if err == nil && n < e.size {
		err = errors.New(e.name + " became shorter while it was read")
	}
	return err
}

// agentLayer is the layer with the agent, and the folder where any user may
// leave a report. It is the same for all packages and in the agent's own
// image: a registry keeps it once, and a node reads it once.
func agentLayer(program []byte) (v1.Layer, error) {
	return streamed(func(w *tar.Writer) error {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(agent.Dir, "/") + "/", Mode: 0o1777, ModTime: stamp}); err != nil {
			return err
		}
		return writeData(w, agent.Path, 0o755, program)
	})
}

// descriptionLayer is the layer with what the agent reads of a package.
func descriptionLayer(description []byte) (v1.Layer, error) {
	return streamed(func(w *tar.Writer) error { return writeData(w, agent.PackageFile, 0o644, description) })
}

func writeData(w *tar.Writer, name string, mode int64, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "/"), Mode: mode, Size: int64(len(data)), ModTime: stamp}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
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
