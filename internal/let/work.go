package let

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// work is the task's own folder on the shared filesystem. All attempts of a task
// have the same.
type work struct {
	folder string // empty: there is none
	keep   berth.KeepWork
}

// newWork makes the folder, where something can be made at all. What it is not
// needed for goes on without.
func newWork(order *agent.Order, log io.Writer) work {
	if order.DFS == nil && order.Files != nil && order.Call != nil {
		// What it hands on is made here as it would be on a shared filesystem.
		if folder, err := workFolder(); err == nil {
			return work{folder, berth.KeepNever}
		}
		return work{}
	}
	if order.DFS == nil || order.DFS.ReadOnly || order.Call == nil && len(order.Steps) == 0 {
		return work{}
	}
	parent := filepath.Join(order.DFS.Path, berth.DFSWork)
	folder := filepath.Join(parent, order.Task)
	err := os.MkdirAll(parent, 0o755)
	if err == nil {
		// Tasks of other users make theirs here too, and remove no others'. Only
		// its owner may set that, and did so.
		_ = os.Chmod(filepath.Dir(parent), 0o755)
		_ = os.Chmod(parent, 0o777|os.ModeSticky)
		if err = os.Mkdir(folder, 0o755); os.IsExist(err) {
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintf(log, "berthlet: this task has no working folder on the shared filesystem (BERTH_WORK): %v\n", err)
		return work{}
	}
	return work{folder, order.DFS.KeepWork}
}

// environ adds the folder to the variables of programs.
func (w work) environ(environ []string) []string {
	if w.folder == "" {
		return environ
	}
	return append(environ[:len(environ):len(environ)], "BERTH_WORK="+w.folder)
}

// done removes the folder, unless it is kept: by the infrastructure's policy, or
// because a result lies in it.
func (w work) done(succeeded bool, results []string, log io.Writer) {
	if w.folder == "" || w.keep == berth.KeepAlways || !succeeded && w.keep != berth.KeepNever {
		return
	}
	if succeeded {
		for _, path := range results {
			if path == w.folder || strings.HasPrefix(path, w.folder+"/") || strings.HasPrefix(w.folder, path+"/") {
				return
			}
			if real, err := filepath.EvalSymlinks(path); err != nil || strings.HasPrefix(real, w.folder+"/") || real == w.folder {
				return
			}
		}
	}
	if err := os.RemoveAll(w.folder); err != nil {
		fmt.Fprintf(log, "berthlet: the working folder %s could not be removed: %v\n", w.folder, err)
	}
}
