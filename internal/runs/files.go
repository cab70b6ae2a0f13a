package runs

import (
	"context"
	"encoding/json"
	"path"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/workflow"
)

// Files moves what calls give to where others take it.
type Files interface {
	// Target returns the infrastructure that a task is run on; empty where it
	// may be one of several.
	Target(ctx context.Context, spec *berth.TaskSpec) (string, error)
	// Filesystem returns what the tasks of an infrastructure share, which is the
	// same for infrastructures that share it, and where they have it; empty:
	// they share nothing.
	Filesystem(infrastructure string) (name, mount string)
	// Blob puts what is at a path of an infrastructure's filesystem into the
	// registry, unless that has it.
	Blob(ctx context.Context, infrastructure, path string, directory bool) (berth.Blob, error)
	// Sum returns the digest that Blob would give. CodeNotFound where there is
	// nothing.
	Sum(ctx context.Context, infrastructure, path string, directory bool) (string, error)
	// Has reports whether the registry has a blob.
	Has(ctx context.Context, digest string) (bool, error)
}

// A call's result has paths of the infrastructure that it was made on. A call
// that is given one is brought what is there, if it is made elsewhere.

// definition is the function that a call is of; nil of a plain task.
func (x *execution) definition(pkg, digest, function string) (*berth.Function, map[string]berth.Class) {
	for i := range x.packages {
		if p := &x.packages[i]; p.Name == pkg && (digest == "" || p.Digest == digest) {
			if fn := p.Function(function); fn != nil {
				return fn, p.Types
			}
		}
	}
	return nil, nil
}

// findFiles notes where the paths in a call's result are. The caller holds mu.
func (x *execution) findFiles(c *berth.RunCall) {
	if c.Kind != string(workflow.KindFunction) || c.Result == nil || c.Infrastructure == nil {
		return
	}
	at := strings.LastIndexByte(c.Name, '.') // PACKAGE.FUNCTION
	if at < 0 {
		return
	}
	fn, types := x.definition(c.Name[:at], "", c.Name[at+1:])
	if fn == nil {
		return
	}
	_, _ = berth.MapResultPaths(fn, types, c.Result, func(_ string, _ berth.Type, file string) (string, error) {
		if path.IsAbs(file) {
			x.origins[path.Clean(file)] = &origin{infrastructure: *c.Infrastructure, moved: map[string]*moved{}}
		}
		return file, nil
	})
}

// origin is where something is that a call gave.
type origin struct {
	infrastructure string
	moved          map[string]*moved // by path: what of it is, or is being, put into the registry
}

// moved is a file that is moved for all calls that take it.
type moved struct {
	done chan struct{} // closed once the rest is set
	blob berth.Blob
	err  error
}

// origin is where a path is that a call gave, or one in a directory that a call
// gave; nil: no call did.
func (x *execution) origin(file string) *origin {
	if !path.IsAbs(file) {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for at := path.Clean(file); ; at = path.Dir(at) {
		if from := x.origins[at]; from != nil || at == "/" {
			return from
		}
	}
}

// eachPath replaces the paths among the arguments of a call.
func (x *execution) eachPath(c *workflow.Call, replace func(t berth.Type, file string) (string, error)) (map[string]json.RawMessage, error) {
	fn, types := x.definition(c.Package, c.Image, c.Function)
	if fn == nil {
		return c.Arguments, nil
	}
	out := map[string]json.RawMessage{}
	for name, value := range c.Arguments {
		out[name] = value
	}
	for _, in := range fn.Inputs {
		value, given := out[in.Name]
		t, err := berth.ParseType(in.Type)
		if !given || err != nil || in.Secret {
			continue
		}
		if out[in.Name], err = berth.MapPaths(in.Name, t, types, value, func(_ string, t berth.Type, file string) (string, error) { return replace(t, file) }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// bring has a call's files where it is made: as they are where it shares them,
// else as blobs. A call that may be made anywhere is made where its first file is.
func (h *host) bring(ctx context.Context, c *workflow.Call, spec *berth.TaskSpec) error {
	x := h.x
	if spec.Call == nil {
		return nil
	}
	target, known := "", false
	arguments, err := x.eachPath(c, func(t berth.Type, file string) (string, error) {
		found := x.origin(file)
		if found == nil {
			return file, nil
		}
		from := found.infrastructure
		if !known {
			known = true
			var err error
			if target, err = x.files.Target(ctx, spec); err != nil {
				return "", err
			}
			if target == "" && len(spec.Where) == 0 {
				target, spec.Infrastructure = from, from
			}
		}
		name, mount := x.files.Filesystem(from)
		if name == "" {
			return "", berth.Errorf(berth.CodeInvalid, "%s was made on infrastructure %s and is gone with its container: what a call hands on is on a filesystem that both share (mount_dfs), or comes through Berth's registry, for which %s needs callback_to in infra.yml and a berth server", file, from, from)
		}
		if there, at := x.files.Filesystem(target); target != "" && there == name {
			if rest, below := strings.CutPrefix(path.Clean(file), mount+"/"); below {
				return path.Join(at, rest), nil
			}
			return file, nil
		}
		blob, err := x.move(ctx, found, file, t.Base == berth.TypeDirectory)
		return blob.String(), err
	})
	if err == nil {
		spec.Call.Arguments = arguments
	}
	return err
}

// move puts what is at a path into the registry, once for all that ask. One that
// fails is tried anew by who asks next.
func (x *execution) move(ctx context.Context, from *origin, file string, directory bool) (berth.Blob, error) {
	x.mu.Lock()
	m, begun := from.moved[file]
	if !begun {
		m = &moved{done: make(chan struct{})}
		from.moved[file] = m
	}
	x.mu.Unlock()
	if begun {
		select {
		case <-m.done:
			return m.blob, m.err
		case <-ctx.Done():
			return berth.Blob{}, context.Cause(ctx)
		}
	}
	m.blob, m.err = x.files.Blob(ctx, from.infrastructure, file, directory)
	if m.err != nil {
		x.mu.Lock()
		delete(from.moved, file)
		x.mu.Unlock()
	}
	close(m.done)
	return m.blob, m.err
}

// sum returns the digest of a file that is on an infrastructure, or a blob.
// CodeNotFound where there is none.
func (x *execution) sum(ctx context.Context, infrastructure, file string, directory bool) (string, error) {
	blob, is := berth.ParseBlob(file)
	if !is {
		return x.files.Sum(ctx, infrastructure, file, directory)
	}
	has, err := x.files.Has(ctx, blob.Digest)
	if err == nil && !has {
		err = berth.Errorf(berth.CodeNotFound, "the registry has no %s", file)
	}
	return blob.Digest, err
}
