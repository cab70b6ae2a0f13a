package let

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// Values of type File and Directory are paths on the shared filesystem, where
// there is one: a relative one is taken below its mount. What goes in has to be
// there before the program starts, and what comes out when it has ended. In a
// workflow they are blobs where nothing is shared; see files.go.

// pathInputs replaces the paths in arguments by what the program finds them at,
// and brings blobs here.
func pathInputs(dfs *agent.DFS, files *files, fn *berth.Function, types map[string]berth.Class, args map[string]json.RawMessage) *agent.Fault {
	for _, in := range fn.Inputs {
		value, given := args[in.Name]
		t, err := berth.ParseType(in.Type)
		if !given || err != nil {
			continue
		}
		var fault *agent.Fault
		mapped, err := berth.MapPaths(in.Name, t, types, value, func(where string, t berth.Type, path string) (string, error) {
			if blob, is := berth.ParseBlob(path); is {
				full, problem := files.fetch(t, blob)
				if problem == nil {
					return full, nil
				}
				problem.Summary = fmt.Sprintf("The program was not started: the argument %s (%s) of %s is %s, and %s.", where, t.Base, fn.Name, path, problem.Summary)
				fault = problem
				return "", errors.New(problem.Summary)
			}
			if dfs == nil {
				return path, nil
			}
			full, err := below(dfs, path)
			if filepath.IsAbs(path) {
				full, err = path, nil // of the image, as well
			}
			if err == nil {
				err = is(t, full)
			}
			if err != nil {
				return "", fmt.Errorf("the argument %s (%s) of %s is %s, and %w", where, t.Base, fn.Name, path, err)
			}
			return full, nil
		})
		if fault != nil {
			return fault
		}
		if err != nil {
			return &agent.Fault{
				Cause: berth.CauseConfigNotFound, Summary: "The program was not started: " + err.Error() + ".",
				Remedy: "name what is there: berth data ls shows the files that tasks share, and berth data put brings one there",
			}
		}
		args[in.Name] = mapped
	}
	return nil
}

// pathResult replaces the paths in a function's value by absolute ones, and
// returns them; or by blobs that are where others reach them. The error says
// which is of no use to others.
func pathResult(dfs *agent.DFS, files *files, fn *berth.Function, types map[string]berth.Class, result json.RawMessage) (json.RawMessage, []string, error) {
	if dfs == nil && files == nil {
		return result, nil, nil
	}
	var paths []string
	check := func(where string, t berth.Type, path string) (string, error) {
		var full string
		var err error
		if dfs == nil {
			full, err = files.hand(t, path)
		} else if full, err = below(dfs, path); err == nil {
			if err = is(t, full); err == nil {
				err = leadsInside(dfs, full)
			}
		}
		if err != nil {
			return "", fmt.Errorf("The output %s (%s) of %s is %s, and %w.", where, t.Base, fn.Name, path, err) //nolint:staticcheck // a sentence for a person
		}
		if dfs != nil {
			paths = append(paths, full)
		}
		return full, nil
	}
	mapped, err := berth.MapResultPaths(fn, types, result, check)
	return mapped, paths, err
}

// below is a path below the mount.
func below(dfs *agent.DFS, path string) (string, error) {
	full := path
	if !filepath.IsAbs(path) {
		full = filepath.Join(dfs.Path, path)
	}
	full = filepath.Clean(full)
	if full != dfs.Path && !strings.HasPrefix(full, strings.TrimSuffix(dfs.Path, "/")+"/") {
		return "", fmt.Errorf("that is not below %s, where the shared filesystem is", dfs.Path)
	}
	return full, nil
}

// is says what is wrong with a path of a type.
func is(t berth.Type, full string) error {
	info, err := os.Stat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s", full)
	case err != nil:
		return fmt.Errorf("it can't be looked at: %w", err)
	case t.Base == berth.TypeDirectory && !info.IsDir():
		return fmt.Errorf("%s is not a directory", full)
	case t.Base == berth.TypeFile && info.IsDir():
		return fmt.Errorf("%s is a directory", full)
	case t.Base == berth.TypeFile && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", full)
	}
	return nil
}

// leadsInside follows symlinks: what is elsewhere in this container goes with it.
func leadsInside(dfs *agent.DFS, full string) error {
	mount, err := filepath.EvalSymlinks(dfs.Path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(full)
	if err != nil {
		return err
	}
	if _, err := below(&agent.DFS{Path: mount}, real); err != nil {
		return fmt.Errorf("that is a symlink to %s, which is not below %s", real, dfs.Path)
	}
	return nil
}
