package runs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
	digest, err := x.cacheDigest(c)
	if err != nil {
		return nil, &berth.CallFailure{Message: err.Error()}, false, nil
	}
	owner := x.caller.Name
	if begun.Task == nil { // none was begun before this process
		known, err := x.store.CachedCall(ctx, owner, digest)
		if err == nil {
			x.note(func() { x.calls[c.Key].Cached = &known.Task })
			return known.Result, nil, true, nil
		}
		if berth.CodeOf(err) != berth.CodeNotFound {
			x.log.Error("cannot look whether a call was made before", "run", x.id, "error", err)
		}
	}
	value, failure, err = h.task(ctx, c, begun)
	if err != nil || failure != nil {
		return nil, failure, false, err
	}
	it := &berth.CachedCall{
		ID: xid.New().String(), Digest: digest, Owner: owner, Name: c.Name, Image: c.Image, Package: c.Package, Version: c.Version, Task: x.taskOf(c.Key), Run: x.id, Result: value, CreatedAt: time.Now().UTC(),
	}
	if err := x.store.PutCachedCall(ctx, it); err != nil {
		x.log.Error("cannot keep what a call gave", "run", x.id, "error", err)
	}
	return value, nil, false, nil
}

func (x *execution) taskOf(key string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if task := x.calls[key].Task; task != nil {
		return *task
	}
	return ""
}

// cacheDigest is the same for calls that are equal: of the same image by its
// digest, and of the same function with the same arguments. An error says why a
// call can't be told to be equal to another.
func (x *execution) cacheDigest(c *workflow.Call) (string, error) {
	switch {
	case len(c.Secrets) > 0:
		return "", errors.New("cache = True: the call has secrets, and what they stand for may change: leave cache away")
	case c.Kind == workflow.KindRun && !strings.Contains(c.Image, "@sha256:"):
		return "", fmt.Errorf("cache = True: %s may be another image tomorrow: name it by its digest, IMAGE@sha256:..., or leave cache away", c.Image)
	case c.Kind == workflow.KindFunction && x.hasFiles(c):
		return "", fmt.Errorf("cache = True: %s takes or gives files, which may change: leave cache away", c.Name)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s\n%s\n%s\n", c.Kind, c.Image, c.Function)
	for _, name := range sortedKeys(c.Arguments) {
		fmt.Fprintf(hash, "%q=%s\n", name, c.Arguments[name])
	}
	for _, arg := range c.Args {
		fmt.Fprintf(hash, "%q\n", arg)
	}
	for _, name := range sortedKeys(c.Env) {
		fmt.Fprintf(hash, "%q=%q\n", name, c.Env[name])
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

// hasFiles reports whether a function takes or gives paths.
func (x *execution) hasFiles(c *workflow.Call) bool {
	for i := range x.packages {
		p := &x.packages[i]
		if fn := p.Function(c.Function); p.Name == c.Package && p.Digest == c.Image && fn != nil {
			for _, parameter := range append(append([]berth.Parameter{}, fn.Inputs...), fn.Outputs...) {
				if t, err := berth.ParseType(parameter.Type); err != nil || berth.HasPaths(t, p.Types) {
					return true
				}
			}
		}
	}
	return false
}
