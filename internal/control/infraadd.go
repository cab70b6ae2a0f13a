package control

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/kube"
)

func (h *Host) AddInfrastructure(ctx context.Context, source berth.InfrastructureSource) error {
	if caller := h.caller(ctx); !caller.MayAdminister() {
		return needs(caller, berth.RoleAdmin, "add infrastructures")
	}
	if err := berth.ValidateInfrastructureName(source.Name); err != nil {
		return berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	if _, remote := berth.CallerFrom(ctx); remote {
		if err := selfContained(source); err != nil {
			return err
		}
	}
	if source.Content != "" {
		return h.addContent(source)
	}
	probe, err := h.connect(sourceEntry(source), h.store.Instance())
	if err != nil {
		return err
	}
	probe.close()
	if err := config.Add(h.config.InfraPath, source); err != nil {
		return err
	}
	return h.readAgain()
}

// selfContained refuses what would make the server read its own files or
// environment for a client, or run a program.
func selfContained(source berth.InfrastructureSource) error {
	if source.Kind == berth.KindDocker {
		return berth.Errorf(berth.CodeForbidden, "over the network a Docker Engine can't be added: whoever runs containers on it is root on its machine, and it may be the server's own; add it there")
	}
	if source.Kubeconfig != "" || source.Content == "" {
		return berth.Errorf(berth.CodeForbidden, "over the network an infrastructure is added with its kubeconfig's content: a path would name a file of the server")
	}
	for _, text := range []string{source.Context, source.Namespace, source.Content.Reveal()} {
		if strings.Contains(text, "${") || strings.HasPrefix(text, "s$") {
			return berth.Errorf(berth.CodeForbidden, "over the network an infrastructure can't be added with references (${...}): they would be resolved by the server")
		}
	}
	return kube.CheckSelfContained([]byte(source.Content.Reveal()))
}

// sentMark begins the kubeconfigs that were sent over the network, so that they
// are told from those that people put there.
const sentMark = "# Sent with berth infra add; berth infra remove deletes it.\n"

// addContent keeps a kubeconfig that was sent beside infra.yml, and adds the
// entry that names it.
func (h *Host) addContent(source berth.InfrastructureSource) error {
	h.adding.Lock()
	defer h.adding.Unlock()
	probe, err := h.connect(sourceEntry(source), h.store.Instance())
	if err != nil {
		return err
	}
	probe.close()
	path := h.sentPath(source.Name)
	text := []byte(sentMark + source.Content.Reveal())
	before, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(before, text) && h.names(source.Name, path):
		return nil // the same was added before: the answer was lost on its way
	case err == nil && !bytes.HasPrefix(before, []byte(sentMark)):
		return berth.Errorf(berth.CodeConflict, "the server has a file %s that isn't of an infrastructure that was sent: choose another name", filepath.Base(path))
	case err == nil && h.names(source.Name, path):
		return berth.Errorf(berth.CodeConflict, "there is an infrastructure %s already; choose another name, or take it out with: berth infra remove %s", source.Name, source.Name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return berth.Errorf(berth.CodeInternal, "cannot keep the kubeconfig: %w", err)
	}
	if err := config.WriteSecret(path, text); err != nil {
		return err
	}
	source.Kubeconfig, source.Content = path, ""
	if err := config.Add(h.config.InfraPath, source); err != nil {
		_ = os.Remove(path) // no entry names it
		return err
	}
	return h.readAgain()
}

func (h *Host) sentPath(name string) string {
	return filepath.Join(filepath.Dir(h.config.InfraPath), name+".kubeconfig")
}

// names reports whether infra.yml has an entry of that name with that file.
func (h *Host) names(name, path string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return false
	}
	entry, ok := find(h.file, name)
	return ok && entry.Credentials.Path == path
}

// forgetKubeconfig deletes what was kept for an entry that was sent.
func (h *Host) forgetKubeconfig(entry berth.InfrastructureConfig) {
	path := h.sentPath(entry.Name)
	if entry.Credentials.Path != path {
		return
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(data, []byte(sentMark)) {
		return
	}
	if err := os.Remove(path); err != nil {
		h.config.Log.Warn("cannot delete the kubeconfig of an infrastructure that was removed", "error", err)
	}
}
