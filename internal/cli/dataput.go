package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/datafs"
)

func (a *app) dataPutCommand() *cobra.Command {
	var f dataFlags
	cmd := &cobra.Command{
		Use: "put LOCAL|- PATH", Short: "Copy a file, or a directory, from here to the shared ones",
		Long: `Copy a file from here, or stdin, to the shared PATH, in place of one that is there;
where PATH is a directory, or ends in /, into it. With -r a directory with all that is
in it, which must not be there yet. Directories on the way are made. What is written
has its place only when all of it is there.`,
		Example: "  berth data put input.csv /data/input.csv\n  berth data put -r ./images /data/images\n  pg_dump shop | berth data put - dumps/shop.sql",
		Args:    exactly(2, "a file from here, or -, and a shared path"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			return a.completeData(&f, 1)(cmd, args, begun)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(cmd, args[1])
			if err != nil {
				return err
			}
			put, skipped, err := a.putFrom(args[0], f.recursive)
			if err != nil {
				return err
			}
			put.Infrastructure, put.Path = q.Infrastructure, q.Path
			return a.withData(cmd, func(ctx context.Context, service berth.Service) error {
				open, size := put.Open, put.size
				progress := a.newTransfer("put", args[0], size)
				defer progress.close()
				put.Open = func() (io.ReadCloser, error) {
					content, err := open()
					if err != nil {
						return nil, err
					}
					if args[0] == "-" {
						content = interruptible(ctx, content)
					}
					progress.again()
					return &counted{content, progress, func() { answered(ctx) }}, nil
				}
				entry, err := service.PutData(ctx, put.DataPut)
				if err != nil {
					return err
				}
				progress.what = entry.Path
				progress.done(skipped())
				return nil
			})
		},
	}
	a.dataFlags(cmd, &f)
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "r", false, "a directory with all that is in it")
	return cmd
}

type localPut struct {
	berth.DataPut
	size int64
}

// putFrom is what is copied from a local path, and how much of a directory is
// left out.
func (a *app) putFrom(local string, recursive bool) (localPut, func() int, error) {
	none := func() int { return 0 }
	if local == "-" {
		if recursive {
			return localPut{}, nil, fmt.Errorf("-r copies a directory, and - is stdin")
		}
		opened := false
		return localPut{DataPut: berth.DataPut{Open: func() (io.ReadCloser, error) {
			if opened {
				return nil, errors.New("stdin can't be read a second time, and the first time did not arrive: begin again")
			}
			opened = true
			return io.NopCloser(a.stdin), nil
		}}}, none, nil
	}
	info, err := os.Stat(local)
	if err != nil {
		return localPut{}, nil, fmt.Errorf("cannot read %s: %w", local, errors.Unwrap(err))
	}
	absolute, err := filepath.Abs(local)
	if err != nil {
		return localPut{}, nil, err
	}
	name := filepath.Base(absolute)
	switch {
	case info.IsDir() && !recursive:
		return localPut{}, nil, fmt.Errorf("%s is a directory: -r copies it with all that is in it", local)
	case info.IsDir():
		skipped := 0
		open := func() (io.ReadCloser, error) { return packed(local, &skipped) }
		return localPut{DataPut: berth.DataPut{Name: name, Directory: true, Open: open}}, func() int { return skipped }, nil
	}
	put := localPut{DataPut: berth.DataPut{Name: name, Mode: uint32(info.Mode().Perm()), Open: func() (io.ReadCloser, error) { return os.Open(local) }}}
	if info.Mode().IsRegular() {
		put.size = info.Size()
	}
	return put, none, nil
}

// packed reads a directory as a tar archive.
func packed(local string, skipped *int) (io.ReadCloser, error) {
	root, err := os.OpenRoot(local)
	if err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	go func() {
		defer root.Close()
		n, err := datafs.Pack(root, writer)
		*skipped = n
		if err != nil {
			err = fmt.Errorf("cannot read %s: %w", local, err)
		}
		writer.CloseWithError(err)
	}()
	return reader, nil
}

// counted tells the progress of what is read.
type counted struct {
	io.ReadCloser
	progress *transfer
	begun    func()
}

func (c *counted) Read(p []byte) (int, error) {
	c.begun()
	n, err := c.ReadCloser.Read(p)
	c.progress.add(n)
	return n, err
}

// interruptible gives up reading when a context ends, also from a terminal or a
// pipe on which nothing comes.
func interruptible(ctx context.Context, from io.ReadCloser) io.ReadCloser {
	reader, writer := io.Pipe()
	stop := context.AfterFunc(ctx, func() { writer.CloseWithError(ctx.Err()) })
	go func() {
		defer stop()
		_, err := io.CopyBuffer(struct{ io.Writer }{writer}, struct{ io.Reader }{from}, make([]byte, 512<<10))
		writer.CloseWithError(err)
		_ = from.Close()
	}()
	return reader
}
