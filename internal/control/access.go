package control

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
)

// caller returns who asks: without one in the context it is the user whose data
// directory this is, since nobody else reaches the Host.
func (h *Host) caller(ctx context.Context) berth.Caller {
	if caller, ok := berth.CallerFrom(ctx); ok {
		return caller
	}
	return berth.Caller{Name: h.owner, Role: berth.RoleAdmin}
}

// visible returns a task if the caller may see it. To everybody else it is as
// if there were none.
func (h *Host) visible(ctx context.Context, id string) (berth.Task, error) {
	task, err := h.engine.Task(ctx, id)
	if err != nil {
		return berth.Task{}, err
	}
	if !h.caller(ctx).MaySee(&task) {
		return berth.Task{}, berth.NoSuchTask(id)
	}
	return task, nil
}

// needs says which role a caller lacks.
func needs(caller berth.Caller, role berth.Role, what string) error {
	if caller.Role == berth.RoleAdmin {
		return berth.Errorf(berth.CodeForbidden, "the token of %s is restricted to %s, and may not %s: that takes one of role admin for all infrastructures", caller.Name, strings.Join(caller.Infrastructures, ", "), what)
	}
	return berth.Errorf(berth.CodeForbidden, "the token of %s has role %s, and may not %s: that takes role %s", caller.Name, caller.Role, what, role)
}

// entryFor returns the entry of infra.yml that a caller may use, for which a
// role is needed: by name, or for no name the default one, or the only one in
// the caller's scope. A name outside the scope is forbidden whether or not
// there is such an entry.
func (h *Host) entryFor(caller berth.Caller, role berth.Role, name string) (berth.InfrastructureConfig, error) {
	if !caller.Role.Includes(role) {
		return berth.InfrastructureConfig{}, needs(caller, role, "run tasks or check infrastructures")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(caller.Infrastructures) == 0 {
		return h.entryLocked(name)
	}
	if name == "" && h.file != nil && caller.MayUse(h.file.Default) {
		name = h.file.Default
	}
	if name == "" && len(caller.Infrastructures) == 1 {
		name = caller.Infrastructures[0]
	}
	scope := strings.Join(caller.Infrastructures, "|")
	if name == "" {
		return berth.InfrastructureConfig{}, berth.Errorf(berth.CodeInvalid, "the token of %s is for several infrastructures: choose one with --on %s", caller.Name, scope)
	}
	if !caller.MayUse(name) {
		return berth.InfrastructureConfig{}, berth.Errorf(berth.CodeForbidden, "the token of %s is restricted to other infrastructures than %q: use --on %s", caller.Name, name, scope)
	}
	entry, err := h.entryLocked(name)
	if berth.CodeOf(err) == berth.CodeNotFound && h.file != nil {
		err = berth.Errorf(berth.CodeNotFound, "there is no infrastructure %q here", name) // without the names of others
	}
	return entry, err
}

// secretsOf refuses a call with a key of secrets.yml that isn't the caller's.
func secretsOf(caller berth.Caller, call *berth.Call) error {
	for _, input := range call.Secrets {
		var reference string
		if err := json.Unmarshal(call.Arguments[input], &reference); err != nil {
			return berth.Errorf(berth.CodeInvalid, "the reference of secret input %s can't be read", input)
		}
		if key, ok := strings.CutPrefix(reference, "secret:"); ok && !caller.MayUseSecret(key) {
			return berth.Errorf(berth.CodeForbidden, "secret input %s: the server's secrets.yml holds more than is %s's to use: its keys for %s begin with %s/; or use a Secret of the namespace, kube:NAME/KEY", input, caller.Name, caller.Name, caller.Name)
		}
	}
	return nil
}

// visibleEntries are the entries of infra.yml in a caller's scope.
func visibleEntries(caller berth.Caller, file *config.File) []berth.InfrastructureConfig {
	var entries []berth.InfrastructureConfig
	for _, entry := range file.Infrastructures {
		if caller.MayUse(entry.Name) {
			entries = append(entries, entry)
		}
	}
	return entries
}
