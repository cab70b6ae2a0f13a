// Package source finds the source tree that this program belongs to: the components are built from
// it, and the clusters' state lies in a folder at its top. It reads the file system and two
// environment variables and writes nothing.
package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// VariableSource names the environment variable with the folder of localkube's own module.
	VariableSource = "LOCALKUBE_SOURCE"
	// VariableHome names the environment variable with the folder that holds the clusters' state.
	VariableHome = "LOCALKUBE_HOME"

	moduleFolder = "tools/localkube"
)

// ErrNotFound says that no source tree contains the places looked at.
var ErrNotFound = errors.New("no folder with " + moduleFolder + "/go.mod")

// Tree is a source tree with localkube in it.
type Tree struct {
	// Module is the folder of localkube's module.
	Module string
	// Home is the folder with one folder of state a cluster.
	Home string
}

// Components is the folder with one Go module a component.
func (t Tree) Components() string { return filepath.Join(t.Module, "components") }

// Find returns the tree named by the environment, or the nearest one at or above a starting folder,
// tried in order. Usual starts are the working directory and the executable's folder: either is
// enough to run the program from anywhere inside a checkout, or a checkout's program from anywhere.
func Find(getenv func(string) string, starts ...string) (Tree, error) {
	module := getenv(VariableSource)
	if module != "" {
		if !isModule(module) {
			return Tree{}, fmt.Errorf("%s=%s has no go.mod and components folder: set it to the folder %s of a checkout", VariableSource, module, moduleFolder)
		}
	} else if module = search(starts); module == "" {
		return Tree{}, fmt.Errorf("%w at or above %q: run localkube inside a checkout, or set %s", ErrNotFound, starts, VariableSource)
	}
	module, err := filepath.Abs(module)
	if err != nil {
		return Tree{}, fmt.Errorf("find the absolute path of %s: %w", module, err)
	}
	home := getenv(VariableHome)
	if home == "" {
		home = filepath.Join(module, "..", "..", ".localkube")
	}
	if home, err = filepath.Abs(home); err != nil {
		return Tree{}, fmt.Errorf("find the absolute path of %s: %w", home, err)
	}
	return Tree{Module: module, Home: home}, nil
}

func search(starts []string) string {
	for _, start := range starts {
		for folder := start; folder != ""; folder = filepath.Dir(folder) {
			if module := filepath.Join(folder, moduleFolder); isModule(module) {
				return module
			}
			if folder == filepath.Dir(folder) {
				break
			}
		}
	}
	return ""
}

// isModule wants the components as well: a go.mod alone may be some other project's.
func isModule(folder string) bool {
	for _, name := range []string{"go.mod", "components"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return false
		}
	}
	return true
}
