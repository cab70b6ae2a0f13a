package let

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/blobs"
	"github.com/berth-run/berth/internal/datafs"
)

// files hands files to other calls of a workflow, and takes theirs, through
// Berth's registry: where no filesystem is shared with them.
type files struct {
	ctx     context.Context
	store   *blobs.Store
	workDir string   // of the program, where its relative paths begin
	folders []string // where what comes in is put: the first that can be written
}

// sharedFiles is where blobs are on a shared filesystem, each brought there once.
const sharedFiles = ".berth/files"

// newFiles returns nil where there is no registry to go through.
func newFiles(order *agent.Order, p *processes, workDir, folder string) *files {
	if order.Files == nil {
		return nil
	}
	transport := &http.Transport{TLSClientConfig: trusting(order.Files.CA), ResponseHeaderTimeout: time.Minute}
	f := &files{workDir: workDir, folders: []string{filepath.Join(folder, "files")}, store: &blobs.Store{
		URL: order.Files.URL,
		Client: &http.Client{
			Transport: transport,
			// A token goes to the address that it was made for and to no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Authorize: func(r *http.Request) { r.SetBasicAuth(order.Files.User, order.Files.Token) },
	}}
	if order.DFS != nil && !order.DFS.ReadOnly {
		f.folders = append([]string{filepath.Join(order.DFS.Path, sharedFiles)}, f.folders...)
	}
	var cancel context.CancelFunc
	f.ctx, cancel = context.WithCancel(context.Background())
	go func() {
		<-p.stopCh
		cancel()
	}()
	return f
}

// errNotHanded says that the registry did not take a file.
var errNotHanded = errors.New("it can't be handed to other calls")

const notHanded = "see whether pods reach callback_to of the infrastructure: berth infra check tries that"

// hand puts what is at a path of the program into the registry, unless that has
// it, and returns the blob.
func (f *files) hand(t berth.Type, path string) (string, error) {
	full := path
	if !filepath.IsAbs(path) {
		full = filepath.Join(f.workDir, path)
	}
	if err := is(t, full); err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(full)
	if err != nil {
		return "", err
	}
	if inside(agent.SecretsDir, real) || inside(real, agent.SecretsDir) {
		return "", fmt.Errorf("there are secrets in %s", real)
	}
	blob := berth.Blob{Name: filepath.Base(filepath.Clean(full)), Directory: t.Base == berth.TypeDirectory}
	sum, n := sha256.New(), &counted{}
	if err := content(real, blob.Directory, io.MultiWriter(sum, n)); err != nil {
		return "", err
	}
	blob.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if _, is := berth.ParseBlob(blob.String()); !is {
		return "", fmt.Errorf("its name %q can't be handed on", blob.Name)
	}
	err = blobs.Again(f.ctx, func() error {
		has, err := f.store.Has(f.ctx, blob.Digest)
		if err != nil {
			return err
		}
		if has {
			return f.store.Keep(f.ctx, blob.Digest, n.n)
		}
		reader, writer := io.Pipe()
		go func() { writer.CloseWithError(content(real, blob.Directory, writer)) }()
		defer reader.Close()
		digest, _, err := f.store.Put(f.ctx, reader)
		if err == nil && digest != blob.Digest {
			err = berth.Errorf(berth.CodeConflict, "%s changed while it was read: whoever writes it should have ended", full)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNotHanded, err)
	}
	return blob.String(), nil
}

// inside reports whether a path is a folder, or in it.
func inside(folder, path string) bool {
	relative, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(relative)
}

type counted struct{ n int64 }

func (c *counted) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// content writes a file, or a directory as a tar archive.
func content(path string, directory bool, to io.Writer) error {
	if directory {
		root, err := os.OpenRoot(path)
		if err != nil {
			return err
		}
		defer root.Close()
		_, err = datafs.Pack(root, to)
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(to, file)
	return err
}

// fetch brings a blob here, and returns where it is. A fault's summary says
// what is wrong with it.
func (f *files) fetch(t berth.Type, blob berth.Blob) (string, *agent.Fault) {
	lacks := func(format string, args ...any) *agent.Fault {
		return &agent.Fault{Cause: berth.CauseConfigNotFound, Summary: fmt.Sprintf(format, args...), Remedy: "have the call that made it run again: berth workflow run, without what was kept of it"}
	}
	switch {
	case f == nil:
		fault := lacks("that comes through Berth's registry, which this infrastructure is not told the way to")
		fault.Remedy = "set callback_to of the infrastructure in infra.yml, on a berth server; or give it the filesystem that the others share: mount_dfs"
		return "", fault
	case blob.Directory && t.Base != berth.TypeDirectory:
		return "", lacks("that is a directory")
	case !blob.Directory && t.Base == berth.TypeDirectory:
		return "", lacks("that is a file")
	}
	var folder string
	var err error
	for _, parent := range f.folders {
		folder = filepath.Join(parent, strings.TrimPrefix(blob.Digest, "sha256:"))
		if _, there := os.Stat(filepath.Join(folder, blob.Name)); there == nil {
			return filepath.Join(folder, blob.Name), nil // another call brought it
		}
		if err = makeShared(folder); err == nil {
			break
		}
	}
	if err != nil {
		return "", lacks("it can't be put into %s: %v", folder, err)
	}
	full := filepath.Join(folder, blob.Name)
	var problem *agent.Fault
	err = blobs.Again(f.ctx, func() error {
		problem = nil
		body, _, err := f.store.Open(f.ctx, blob.Digest)
		if err != nil {
			return err
		}
		defer body.Close()
		err = place(body, blob.Directory, full)
		if err != nil && berth.CodeOf(err) != berth.CodeUnavailable {
			problem = lacks("it can't be put into %s: %v", folder, err)
			return nil
		}
		return err
	})
	switch {
	case err == nil:
	case berth.CodeOf(err) == berth.CodeNotFound:
		problem = lacks("the registry has no such file any more")
	default:
		problem = &agent.Fault{Cause: berth.CauseCallbackUnreachable, Summary: "it can't be had: " + err.Error(), Remedy: notHanded}
	}
	return full, problem
}

// makeShared makes a folder that tasks of other users put things into, too, and
// the one that it is in.
func makeShared(folder string) error {
	parent := filepath.Dir(folder)
	if err := os.MkdirAll(filepath.Dir(parent), 0o755); err != nil {
		return err
	}
	for _, path := range []string{parent, folder} {
		if err := os.Mkdir(path, 0o755); err == nil {
			_ = os.Chmod(path, 0o777|os.ModeSticky)
		} else if !os.IsExist(err) {
			return err
		}
	}
	return unix.Access(folder, unix.W_OK)
}

// place puts a content where it is to be, whole or not at all. Of two that do
// so at once one is first, and both have the same.
func place(content io.Reader, directory bool, full string) error {
	temporary, err := os.MkdirTemp(filepath.Dir(full), ".part-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	made := filepath.Join(temporary, "content")
	if directory {
		err = unpack(content, made)
	} else {
		err = writeWhole(content, made)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(made, full); err != nil {
		if _, there := os.Stat(full); there == nil {
			return nil
		}
		return err
	}
	return nil
}

func unpack(archive io.Reader, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	return datafs.Unpack(root, archive)
}

func writeWhole(content io.Reader, to string) error {
	file, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err = io.Copy(file, content); err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
