package runs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/workflow"
)

// cached answers a call by what an equal one gave, or has it done and keeps what
// it gives. It reports whether it was answered so.
func (h *host) cached(ctx context.Context, c *workflow.Call, begun berth.RunCall) (value json.RawMessage, failure *berth.CallFailure, hit bool, err error) {
	x := h.x
	asked := berth.WithCaller(ctx, x.caller)
	digest, err := retried(ctx, func() (string, error) { return h.cacheDigest(asked, c) })
	if cause := context.Cause(ctx); cause != nil {
		return nil, nil, false, cause
	}
	if err != nil {
		return nil, &berth.CallFailure{Message: err.Error()}, false, nil
	}
	owner := x.caller.Name
	if begun.Task == nil { // none was begun before this process
		known, err := x.store.CachedCall(ctx, owner, digest)
		if err == nil {
			if err = h.stillThere(asked, &known); err == nil {
				x.note(func() {
					x.calls[c.Key].Cached = &known.Task
					if known.Infrastructure != "" {
						x.calls[c.Key].Infrastructure = &known.Infrastructure
					}
				})
				return known.Result, nil, true, nil
			}
			if berth.CodeOf(err) == berth.CodeNotFound {
				err = x.store.DropCachedCall(ctx, known.ID) // which what the call gives takes the place of
			}
		}
		if err != nil && berth.CodeOf(err) != berth.CodeNotFound {
			x.log.Error("cannot look whether a call was made before", "run", x.id, "error", err)
		}
	}
	value, failure, err = h.task(ctx, c, begun)
	if err != nil || failure != nil {
		return nil, failure, false, err
	}
	if err := h.keep(asked, c, digest, value); err != nil {
		x.log.Error("cannot keep what a call gave", "run", x.id, "error", err)
	}
	return value, nil, false, nil
}

// keep stores what a call gave, with what is in its files.
func (h *host) keep(ctx context.Context, c *workflow.Call, digest string, value json.RawMessage) error {
	x := h.x
	task, infrastructure := x.made(c.Key)
	it := &berth.CachedCall{
		ID: xid.New().String(), Digest: digest, Owner: x.caller.Name, Name: c.Name, Image: c.Image, Package: c.Package, Version: c.Version, Task: task, Run: x.id, Result: value, CreatedAt: time.Now().UTC(),
	}
	if fn, types := x.definition(c.Package, c.Image, c.Function); fn != nil && c.Kind == workflow.KindFunction {
		it.Infrastructure = infrastructure
		_, err := berth.MapResultPaths(fn, types, value, func(_ string, t berth.Type, file string) (string, error) {
			directory := t.Base == berth.TypeDirectory
			sum, err := x.sum(ctx, it.Infrastructure, file, directory)
			if err == nil {
				if it.Files == nil {
					it.Files = map[string]string{}
				}
				it.Files[cachedPath(file, directory)] = sum
			}
			return file, err
		})
		if err != nil {
			return err
		}
	}
	return x.store.PutCachedCall(ctx, it)
}

// cachedPath is a path with what it is a path of, which its end tells.
func cachedPath(file string, directory bool) string {
	if file = strings.TrimSuffix(file, "/"); directory {
		file += "/"
	}
	return file
}

// stillThere says whether the files of a cached call are what they were;
// CodeNotFound where they are not.
func (h *host) stillThere(ctx context.Context, known *berth.CachedCall) error {
	for file, was := range known.Files {
		plain, directory := strings.CutSuffix(file, "/")
		if _, is := berth.ParseBlob(file); is {
			plain = file
		}
		is, err := h.x.sum(ctx, known.Infrastructure, plain, directory)
		if err == nil && is != was {
			err = berth.Errorf(berth.CodeNotFound, "%s has changed since", file)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// made is the task that did a call, and where; empty where there was none.
func (x *execution) made(key string) (task, infrastructure string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.calls[key]; c.Task != nil {
		task = *c.Task
		if c.Infrastructure != nil {
			infrastructure = *c.Infrastructure
		}
	}
	return task, infrastructure
}

// cacheDigest is the same for calls that are equal: of the same image by its
// digest, and of the same function with the same arguments, in which a file is
// what is in it. An error says why a call can't be told to be equal to another.
func (h *host) cacheDigest(ctx context.Context, c *workflow.Call) (string, error) {
	switch {
	case len(c.Secrets) > 0:
		return "", berth.Errorf(berth.CodeInvalid, "cache = True: the call has secrets, and what they stand for may change: leave cache away")
	case c.Kind == workflow.KindRun && !strings.Contains(c.Image, "@sha256:"):
		return "", berth.Errorf(berth.CodeInvalid, "cache = True: %s may be another image tomorrow: name it by its digest, IMAGE@sha256:..., or leave cache away", c.Image)
	}
	arguments, err := h.contents(ctx, c)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s\n%s\n%s\n", c.Kind, c.Image, c.Function)
	for _, name := range sortedKeys(arguments) {
		fmt.Fprintf(hash, "%q=%s\n", name, arguments[name])
	}
	for _, arg := range c.Args {
		fmt.Fprintf(hash, "%q\n", arg)
	}
	for _, name := range sortedKeys(c.Env) {
		fmt.Fprintf(hash, "%q=%q\n", name, c.Env[name])
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

// contents are the arguments of a call with the digests of what is in files in
// place of where they are.
func (h *host) contents(ctx context.Context, c *workflow.Call) (map[string]json.RawMessage, error) {
	x := h.x
	if c.Kind != workflow.KindFunction {
		return c.Arguments, nil
	}
	return x.eachPath(c, func(t berth.Type, file string) (string, error) {
		on := ""
		if from := x.origin(file); from != nil {
			on = from.infrastructure
		}
		if _, is := berth.ParseBlob(file); !is && on == "" {
			spec, err := h.submission(c, 0)
			if err == nil {
				on, err = x.files.Target(ctx, &spec.Spec)
			}
			if err != nil {
				return "", err
			}
			if on == "" {
				return "", berth.Errorf(berth.CodeInvalid, "cache = True: which infrastructure's file %s is has to be known: say it with on", file)
			}
			if _, mount := x.files.Filesystem(on); mount == "" || path.IsAbs(file) && !strings.HasPrefix(path.Clean(file)+"/", mount+"/") {
				return file, nil // of the image, which is part of the digest
			}
		}
		sum, err := x.sum(ctx, on, file, t.Base == berth.TypeDirectory)
		if berth.CodeOf(err) == berth.CodeNotFound {
			return file, nil // the call says so
		}
		return sum, err
	})
}
