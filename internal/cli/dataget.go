package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/datafs"
)

func (a *app) dataGetCommand() *cobra.Command {
	var f dataFlags
	cmd := &cobra.Command{
		Use: "get PATH [LOCAL|-]", Short: "Copy a shared file, or a directory, to here",
		Long: `Copy a shared file to LOCAL, or into it where it is a directory; without LOCAL into the
current directory; - is stdout. With -r a directory with all that is in it, as a new
directory. What came is compared with its SHA-256, and nothing half done is left.

A file that a workflow gave as blob:sha256:... is in Berth's registry, and needs no
shared filesystem.`,
		Example: "  berth data get /data/results.csv\n  berth data get -r results ./results-1 --on site-a\n  berth data get log.txt - | grep error",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return fmt.Errorf("%s takes a shared path, and where to copy it to; see %s --help", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: a.completeData(&f, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(cmd, args[0])
			if err != nil {
				return err
			}
			local := "."
			if len(args) == 2 {
				local = args[1]
			}
			if local == "" {
				return fmt.Errorf("LOCAL is empty: give a path, or - for stdout")
			}
			return a.withData(cmd, func(ctx context.Context, service berth.Service) error {
				g := &getting{app: a, chunks: service.GetData(ctx, q), answered: func() { answered(ctx) }}
				return g.to(local)
			})
		},
	}
	a.dataFlags(cmd, &f)
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "r", false, "a directory with all that is in it")
	return cmd
}

// getting is one thing that is copied to here.
type getting struct {
	app      *app
	chunks   iter.Seq2[berth.DataChunk, error]
	answered func()

	entry    berth.DataEntry
	progress *transfer
}

func (g *getting) to(local string) error {
	next, stop := iter.Pull2(g.chunks)
	defer stop()
	first, err, ok := next()
	if err != nil {
		return err
	}
	if !ok || first.Entry == nil {
		return berth.Errorf(berth.CodeInternal, "nothing came")
	}
	g.answered()
	g.entry = *first.Entry
	size := g.entry.Size
	if g.entry.Type == berth.DataDirectory {
		size = 0 // it isn't known before
	}
	g.progress = g.app.newTransfer("got", g.entry.Path, size)
	defer g.progress.close()
	content := &chunkReader{next: next, progress: g.progress}
	switch {
	case local == "-":
		if _, err = io.Copy(g.app.stdout, content); err == nil {
			err = content.whole()
		}
	case g.entry.Type == berth.DataDirectory:
		err = g.directory(local, content)
	default:
		err = g.file(local, content)
	}
	if err != nil {
		return err
	}
	g.progress.done(content.end.Skipped)
	return nil
}

// target is where it is to be: what is named, or in the directory that is.
func (g *getting) target(local string) (string, error) {
	info, err := os.Stat(local)
	if err == nil && info.IsDir() || os.IsPathSeparator(local[len(local)-1]) {
		name := path.Base(g.entry.Path)
		if name == "/" || name == "." || name == ".." {
			return "", fmt.Errorf("%s has no name of its own: say what it is to be called here", g.entry.Path)
		}
		return filepath.Join(local, name), nil
	}
	return local, nil
}

func (g *getting) file(local string, content *chunkReader) error {
	to, err := g.target(local)
	if err != nil {
		return err
	}
	if info, err := os.Stat(to); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return fmt.Errorf("%s is a directory here: choose another name", to)
		}
		return toStream(to, content) // /dev/null, a pipe
	}
	mode := fs.FileMode(0o644)
	if bits, err := strconv.ParseUint(g.entry.Mode, 8, 32); err == nil {
		mode = fs.FileMode(bits).Perm()
	}
	temporary := beside(to)
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o200)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", to, err)
	}
	defer os.Remove(temporary)
	_, err = io.Copy(file, content)
	if err == nil {
		err = content.whole()
	}
	if err == nil {
		err = file.Chmod(mode)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary, to)
	}
	return err
}

// toStream writes to what is no file, and can't be put in place of one.
func toStream(to string, content *chunkReader) error {
	file, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err == nil {
		err = content.whole()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (g *getting) directory(local string, content *chunkReader) error {
	to, err := g.target(local)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%s exists here already: remove it first, or choose another name", to)
	}
	temporary := beside(to)
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return fmt.Errorf("cannot write %s: %w", to, err)
	}
	defer os.RemoveAll(temporary)
	root, err := os.OpenRoot(temporary)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := datafs.Unpack(root, content); err != nil {
		return fmt.Errorf("cannot write %s: %w", to, err)
	}
	if err := content.whole(); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}

// beside is a name that nobody else uses, in the same directory.
func beside(to string) string {
	return filepath.Join(filepath.Dir(to), ".berth-get-"+rand.Text())
}

// chunkReader reads the content that chunks are pieces of.
type chunkReader struct {
	next     func() (berth.DataChunk, error, bool)
	progress *transfer
	left     []byte
	end      *berth.DataEnd
	size     int64
	sum      hash.Hash
	err      error
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if r.sum == nil {
		r.sum = sha256.New()
	}
	for len(r.left) == 0 && r.err == nil {
		chunk, err, ok := r.next()
		switch {
		case err != nil:
			r.err = err
		case !ok:
			r.err = berth.Errorf(berth.CodeUnavailable, "it broke off before its end")
		case chunk.End != nil:
			r.end, r.err = chunk.End, io.EOF
		default:
			r.left = chunk.Data
			r.size += int64(len(chunk.Data))
			r.sum.Write(chunk.Data)
			r.progress.add(len(chunk.Data))
		}
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	if n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

// whole says whether all came that was sent.
func (r *chunkReader) whole() error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if got := hex.EncodeToString(r.sum.Sum(nil)); r.end.Size != r.size || r.end.SHA256 != got {
		return berth.Errorf(berth.CodeUnavailable, "what came is not what was sent: %d bytes with SHA-256 %s, of %d with %s; get it again", r.size, got, r.end.Size, r.end.SHA256)
	}
	return nil
}
