// Package cgroup makes and removes the control group that a cluster's pods live in, on machines with
// version 1, with version 2 and with both. All pods are below it, so ending everything in it ends the
// pods even when whatever ran them is gone.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/tools/localkube/internal/mount"
)

// removalPause is how long to wait before trying again to remove a group whose processes are ending.
const removalPause = 20 * time.Millisecond

// Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	Path    string
	Version int
	// Cpuset is set for a version 1 tree with the cpuset controller.
	Cpuset bool
}

// Hierarchies picks the trees out of the mounts.
func Hierarchies(points []mount.Point) []Hierarchy {
	var trees []Hierarchy
	seen := map[string]bool{}
	for _, point := range points {
		tree := Hierarchy{Path: point.Path}
		switch point.Type {
		case "cgroup":
			tree.Version = 1
			for _, option := range strings.Split(point.Options, ",") {
				tree.Cpuset = tree.Cpuset || option == "cpuset"
			}
		case "cgroup2":
			tree.Version = 2
		}
		// Only the machine's own: containers' copies lie elsewhere.
		if tree.Version != 0 && strings.HasPrefix(tree.Path, "/sys/fs/cgroup") && !seen[tree.Path] {
			seen[tree.Path] = true
			trees = append(trees, tree)
		}
	}
	return trees
}

// Group is a group by the same name at the top of every tree.
type Group struct {
	Name string
}

func (g Group) trees() ([]Hierarchy, error) {
	points, err := mount.Points()
	if err != nil {
		return nil, err
	}
	trees := Hierarchies(points)
	if len(trees) == 0 {
		return nil, errors.New("find the control groups: nothing is mounted below /sys/fs/cgroup")
	}
	return trees, nil
}

// Make creates the group in every version 1 tree, or in the version 2 tree where that is the only one.
func (g Group) Make() error {
	trees, err := g.trees()
	if err != nil {
		return err
	}
	unified := len(trees) == 1 && trees[0].Version == 2
	for _, tree := range trees {
		folder := filepath.Join(tree.Path, g.Name)
		switch {
		case unified:
			err = makeUnified(tree.Path, folder)
		case tree.Version == 1:
			err = os.MkdirAll(folder, 0o755)
			if err == nil && tree.Cpuset {
				err = copyCpuset(tree.Path, folder)
			}
		}
		if err != nil {
			return fmt.Errorf("make the control group %s: %w", folder, err)
		}
	}
	return nil
}

// copyCpuset fills what a new version 1 group starts without: an empty set lets no process in.
func copyCpuset(parent, child string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(child, name), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// makeUnified hands every controller down to the group's children. One at a time: a controller that
// cannot be handed down (some need a setting of the kernel) must not keep the others back.
func makeUnified(top, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, parent := range []string{top, folder} {
		available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(available)) {
			err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0)
			if err != nil && controller == "memory" {
				return fmt.Errorf("hand the memory controller down: %w", err)
			}
		}
	}
	return nil
}

// Processes returns the pids in the group and below it.
func (g Group) Processes() ([]int, error) {
	trees, err := g.trees()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	var pids []int
	for _, tree := range trees {
		for _, folder := range below(filepath.Join(tree.Path, g.Name)) {
			content, _ := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
			for _, field := range strings.Fields(string(content)) {
				// 0 is a process of another pid namespace.
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids, nil
}

// Remove kills what is in the group and removes it from every tree.
func (g Group) Remove(ctx context.Context) error {
	trees, err := g.trees()
	if err != nil {
		return err
	}
	for {
		g.thaw(trees)
		pids, err := g.Processes()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		left := ""
		for _, tree := range trees {
			folders := below(filepath.Join(tree.Path, g.Name))
			for i := len(folders) - 1; i >= 0; i-- {
				if err := unix.Rmdir(folders[i]); err != nil && !errors.Is(err, unix.ENOENT) {
					left = folders[i]
				}
			}
		}
		if left == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove the control group %s: processes %v do not end: %w", left, pids, ctx.Err())
		case <-time.After(removalPause):
		}
	}
}

// thaw lets frozen processes run: they cannot end otherwise.
func (g Group) thaw(trees []Hierarchy) {
	for _, tree := range trees {
		for _, folder := range below(filepath.Join(tree.Path, g.Name)) {
			_ = os.WriteFile(filepath.Join(folder, "freezer.state"), []byte("THAWED"), 0)
			_ = os.WriteFile(filepath.Join(folder, "cgroup.freeze"), []byte("0"), 0)
		}
	}
}

// below returns the folder and all folders in it, parents first; none when it does not exist.
func below(folder string) []string {
	var folders []string
	_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return nil
	})
	return folders
}
