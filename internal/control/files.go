package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/blobs"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/images"
)

// filesUser is who the agent of a workflow's task is to our own registry; the
// task and the pod of the attempt follow.
const filesUser = "task-"

// files is how the agent of a workflow's task reaches our registry; nil where it
// is not told the way here.
func (a *agents) files(infra berth.InfrastructureConfig, order engine.Order) *agent.Files {
	where, err := url.Parse(infra.CallbackTo)
	if infra.CallbackTo == "" || err != nil {
		return nil
	}
	return &agent.Files{
		URL:  (&url.URL{Scheme: where.Scheme, Host: where.Host}).String(), // a registry is at the root of its host
		User: filesUser + order.TaskID + "/" + order.Pod, Token: a.keys.Token(order.TaskID, order.Pod), CA: a.host.callbackCA(),
	}
}

// mayHandFiles reports whether a request is one of the agent of a task and pod,
// which may read and add files, and nothing else.
func (a *agents) mayHandFiles(r *http.Request, who, token string) bool {
	task, pod, _ := strings.Cut(who, "/")
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return false
	}
	return strings.HasPrefix(path.Clean(r.URL.Path)+"/", "/v2/"+berth.FilesRepository+"/") && !r.URL.Query().Has("from") && a.keys.Valid(token, task, pod)
}

// blobStore is where files are in our own registry.
func (p *packages) blobStore() *blobs.Store {
	return &blobs.Store{URL: "http://berth", Client: &http.Client{Transport: images.HandlerTransport{Handler: p}}}
}

// getBlob reads a file of a workflow that lies in our registry.
func (h *Host) getBlob(ctx context.Context, q berth.DataQuery, blob berth.Blob) iter.Seq2[berth.DataChunk, error] {
	return func(yield func(berth.DataChunk, error) bool) {
		if caller := h.caller(ctx); !caller.Role.Includes(berth.RoleWrite) {
			yield(berth.DataChunk{}, needs(caller, berth.RoleWrite, "reach the files of workflows"))
			return
		}
		if blob.Directory && !q.Recursive {
			yield(berth.DataChunk{}, berth.Errorf(berth.CodeInvalid, "%s is a directory: read it with what is in it, -r", blob))
			return
		}
		content, size, err := h.packages.blobStore().Open(ctx, blob.Digest)
		if berth.CodeOf(err) == berth.CodeNotFound {
			err = berth.Errorf(berth.CodeNotFound, "there is no %s, or not any more", blob)
		}
		if err != nil {
			yield(berth.DataChunk{}, err)
			return
		}
		defer content.Close()
		entry := &berth.DataEntry{Path: blob.String(), Type: berth.DataFile, Size: size, Mode: "0644", ModifiedAt: time.Now().UTC()}
		if blob.Directory {
			entry.Type, entry.Mode = berth.DataDirectory, "0755"
		}
		if !yield(berth.DataChunk{Entry: entry}, nil) {
			return
		}
		var total int64
		for buffer := make([]byte, 256<<10); ; {
			n, err := io.ReadFull(content, buffer)
			if n > 0 && !yield(berth.DataChunk{Data: append([]byte(nil), buffer[:n]...)}, nil) {
				return
			}
			total += int64(n)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				yield(berth.DataChunk{}, err)
				return
			}
		}
		yield(berth.DataChunk{End: &berth.DataEnd{Size: total, SHA256: strings.TrimPrefix(blob.Digest, "sha256:")}}, nil)
	}
}

// workflowFiles implements runs.Files.
type workflowFiles struct{ host *Host }

func (w workflowFiles) Target(ctx context.Context, spec *berth.TaskSpec) (string, error) {
	caller := w.host.caller(ctx)
	w.host.mu.Lock()
	file := w.host.file
	w.host.mu.Unlock()
	if !single(file, caller, spec) {
		return "", nil
	}
	entry, err := w.host.entryFor(caller, berth.RoleWrite, spec.Infrastructure)
	return entry.Name, err
}

func (w workflowFiles) Filesystem(infrastructure string) (name, mount string) {
	w.host.mu.Lock()
	entry, err := w.host.entryLocked(infrastructure)
	w.host.mu.Unlock()
	if err != nil || infrastructure == "" || entry.DFS == nil {
		return "", ""
	}
	// A claim is one of a namespace; an address is taken to be the same for all.
	name = entry.DFS.URL.Reveal()
	if entry.DFS.Claim != "" {
		name = strings.Join([]string{"claim", entry.Name, entry.DFS.Claim}, "\x00")
	}
	return name, entry.DFS.Path
}

func (w workflowFiles) Has(ctx context.Context, digest string) (bool, error) {
	return w.host.packages.blobStore().Has(ctx, digest)
}

func (w workflowFiles) Blob(ctx context.Context, infrastructure, file string, directory bool) (berth.Blob, error) {
	blob := berth.Blob{Name: path.Base(path.Clean(file)), Directory: directory}
	content := w.read(ctx, infrastructure, file, directory)
	defer content.Close()
	var err error
	blob.Digest, _, err = w.host.packages.blobStore().Put(ctx, content)
	if err == nil {
		if _, is := berth.ParseBlob(blob.String()); !is {
			err = berth.Errorf(berth.CodeInvalid, "%s can't be handed to another infrastructure: its name is %q", file, blob.Name)
		}
	}
	return blob, err
}

func (w workflowFiles) Sum(ctx context.Context, infrastructure, file string, directory bool) (string, error) {
	content := w.read(ctx, infrastructure, file, directory)
	defer content.Close()
	sum := sha256.New()
	_, err := io.Copy(sum, content)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), err
}

// read reads a file of an infrastructure, or a directory as an archive.
func (w workflowFiles) read(ctx context.Context, infrastructure, file string, directory bool) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() {
		whole := false
		for chunk, err := range w.host.service().GetData(ctx, berth.DataQuery{Infrastructure: infrastructure, Path: file, Recursive: directory}) {
			if err != nil {
				_ = writer.CloseWithError(err)
				return
			}
			whole = whole || chunk.End != nil
			if _, err := writer.Write(chunk.Data); err != nil {
				return
			}
		}
		var err error
		if !whole {
			err = cmp.Or(context.Cause(ctx), error(berth.Errorf(berth.CodeUnavailable, "%s of %s could not be read to its end", file, infrastructure)))
		}
		_ = writer.CloseWithError(err)
	}()
	return reader
}
