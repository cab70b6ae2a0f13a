package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"

	"github.com/berth-run/berth"
)

// Edits are made in the text, line by line, so that comments, order and
// spelling of all else stay as people wrote them. The result is read again and
// compared before it replaces the file: an edit that would change anything
// else is refused instead.

var editing sync.Mutex

// Add writes an entry into infra.yml, which it creates (mode 0600) when there
// is none. CodeConflict when the name is taken.
func Add(path string, source berth.InfrastructureSource) error {
	editing.Lock()
	defer editing.Unlock()
	if err := berth.ValidateInfrastructureName(source.Name); err != nil {
		return berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return berth.Errorf(berth.CodeInvalid, "infra.yml: %w", err)
	}
	stored := ""
	if source.Kind != berth.KindDocker {
		if stored, err = storedPath(path, source.Kubeconfig); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return berth.Errorf(berth.CodeInvalid, "infra.yml can't be read: %w", err)
	}
	before, err := parse(path, data, os.LookupEnv)
	if err != nil {
		return berth.Errorf(berth.CodeOf(err), "nothing was added: %w", err)
	}
	for _, infra := range before.Infrastructures {
		if infra.Name == source.Name {
			return berth.Errorf(berth.CodeConflict, "%s has an infrastructure %s already; choose another name, or take it out with: berth infra remove %s", displayName(path), source.Name, source.Name)
		}
	}
	text, err := inserted(path, string(data), source, stored)
	if err != nil {
		return err
	}
	if _, err := parse(path, []byte(text), os.LookupEnv); err != nil && source.Kind == berth.KindDocker {
		return berth.Errorf(berth.CodeInvalid, "nothing was added; such an entry is written by hand: %w", err)
	}
	return replace(path, text, before, func(after *File) bool {
		last := len(after.Infrastructures) - 1
		return last >= 0 && after.Infrastructures[last].Name == source.Name && sameEntries(before.Infrastructures, after.Infrastructures[:last])
	})
}

// Remove takes an entry out of infra.yml. A default: that names it goes with
// it; all else stays as it is, comments above the entry included. CodeNotFound
// when there is no such entry.
func Remove(path, name string) error {
	editing.Lock()
	defer editing.Unlock()
	path, err := filepath.Abs(path)
	if err != nil {
		return berth.Errorf(berth.CodeInvalid, "infra.yml: %w", err)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return berth.Errorf(berth.CodeNotFound, "there is no %s, and so no infrastructure %s", displayName(path), name)
	}
	if err != nil {
		return berth.Errorf(berth.CodeInvalid, "infra.yml can't be read: %w", err)
	}
	before, err := parse(path, data, os.LookupEnv)
	if err != nil {
		return berth.Errorf(berth.CodeOf(err), "nothing was removed: %w", err)
	}
	rest := without(before.Infrastructures, name)
	if len(rest) == len(before.Infrastructures) {
		return berth.Errorf(berth.CodeNotFound, "there is no infrastructure %s in %s", name, displayName(path))
	}
	text, err := removed(path, string(data), name, before.Default == name)
	if err != nil {
		return err
	}
	return replace(path, text, before, func(after *File) bool { return sameEntries(rest, after.Infrastructures) })
}

func without(list []berth.InfrastructureConfig, name string) []berth.InfrastructureConfig {
	var rest []berth.InfrastructureConfig
	for _, infra := range list {
		if infra.Name != name {
			rest = append(rest, infra)
		}
	}
	return rest
}

func sameEntries(a, b []berth.InfrastructureConfig) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

// replace writes the file if it then says what it should.
func replace(path, text string, before *File, right func(after *File) bool) error {
	after, err := parse(path, []byte(text), os.LookupEnv)
	if err != nil || !right(after) {
		return byHand(path)
	}
	return writeAtomically(path, []byte(text))
}

func byHand(path string) error {
	return berth.Errorf(berth.CodeInvalid, "%s is written in a way that can't be edited safely here; edit it by hand", displayName(path))
}

// storedPath is how infra.yml names a kubeconfig: relative when it lies below,
// so that the folder can be moved, absolute otherwise.
func storedPath(infraPath, kubeconfig string) (string, error) {
	if kubeconfig == "" {
		return "", berth.Errorf(berth.CodeInvalid, "no kubeconfig was named; berth infra add NAME --kubeconfig FILE")
	}
	absolute, err := filepath.Abs(kubeconfig)
	if err != nil {
		return "", berth.Errorf(berth.CodeInvalid, "kubeconfig %s: %w", kubeconfig, err)
	}
	info, err := os.Stat(absolute)
	if err != nil {
		return "", berth.Errorf(berth.CodeInvalid, "kubeconfig can't be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", berth.Errorf(berth.CodeInvalid, "kubeconfig %s is not a file", absolute)
	}
	if relative, err := filepath.Rel(filepath.Dir(infraPath), absolute); err == nil && filepath.IsLocal(relative) {
		return "./" + filepath.ToSlash(relative), nil
	}
	return absolute, nil
}
