package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
)

// placed returns the infrastructure to run a task on: the one that it names, the
// default one, the only one, or else the one that fits and has room; then among
// are those that it may move to while it was never tried.
func (h *Host) placed(ctx context.Context, caller berth.Caller, spec *berth.TaskSpec) (entry berth.InfrastructureConfig, among []string, err error) {
	if !caller.Role.Includes(berth.RoleWrite) {
		return entry, nil, needs(caller, berth.RoleWrite, "run tasks or check infrastructures")
	}
	h.mu.Lock()
	file := h.file
	h.mu.Unlock()
	if single(file, caller, spec) {
		entry, err = h.entryFor(caller, berth.RoleWrite, spec.Infrastructure)
		return entry, nil, err
	}
	entries, refused := h.fitting(ctx, file, caller, spec)
	if len(entries) == 0 {
		return entry, nil, berth.Errorf(berth.CodeInvalid, "no infrastructure takes this task: %s", strings.Join(refused, "; "))
	}
	for _, e := range entries {
		among = append(among, e.Name)
	}
	var last error
	for _, c := range h.candidates(ctx, entries, spec) {
		asked, err := h.resolved(ctx, &entries[c.Order], spec)
		now := false
		if err == nil {
			now, err = h.engine.Fits(ctx, c.Name, asked)
		}
		if err != nil {
			last = err
			among = slices.DeleteFunc(among, func(name string) bool { return name == c.Name })
			continue
		}
		if entry.Name == "" || now {
			entry = entries[c.Order]
		}
		if now {
			break
		}
	}
	if entry.Name == "" {
		return entry, nil, last
	}
	return entry, among, nil
}

// single reports whether there is just one infrastructure that a task can be
// run on, by what it and infra.yml say.
func single(file *config.File, caller berth.Caller, spec *berth.TaskSpec) bool {
	return spec.Infrastructure != "" || file == nil || len(spec.Where) == 0 && (file.Default != "" && caller.MayUse(file.Default) || len(visibleEntries(caller, file)) < 2)
}

// fitting returns the entries that a caller may use and that have what a task
// asks for, and says why the others have not.
func (h *Host) fitting(ctx context.Context, file *config.File, caller berth.Caller, spec *berth.TaskSpec) (entries []berth.InfrastructureConfig, refused []string) {
	for _, entry := range visibleEntries(caller, file) {
		if why := h.lacks(ctx, &entry, spec); why != "" {
			refused = append(refused, entry.Name+" "+why)
			continue
		}
		entries = append(entries, entry)
	}
	return entries, refused
}

// lacks says what an infrastructure doesn't have that a task needs; empty where
// it has everything.
func (h *Host) lacks(ctx context.Context, entry *berth.InfrastructureConfig, spec *berth.TaskSpec) string {
	for key, value := range spec.Where {
		if has, ok := entry.Labels[key]; !ok {
			return fmt.Sprintf("has no label %s", key)
		} else if has != value {
			return fmt.Sprintf("has %s=%s, not %s", key, has, value)
		}
	}
	if len(spec.Steps) > 0 && entry.Kind == berth.KindKube {
		if _, err := h.packages.agentImage(ctx, *entry); err != nil {
			return "can't run steps: " + err.Error()
		}
	}
	if _, err := h.resolved(ctx, entry, spec); err != nil {
		return "can't run the function: " + err.Error()
	}
	return ""
}

// resolved is a spec as an infrastructure would run it.
func (h *Host) resolved(ctx context.Context, entry *berth.InfrastructureConfig, spec *berth.TaskSpec) (berth.TaskSpec, error) {
	copied := completed(spec, entry)
	if copied.Call == nil {
		return copied, nil
	}
	err := h.resolveCall(ctx, *entry, &copied)
	return copied, err
}

// candidates orders entries by their room for a task; Order is their index.
func (h *Host) candidates(ctx context.Context, entries []berth.InfrastructureConfig, spec *berth.TaskSpec) []berth.Candidate {
	settling, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	candidates := make([]berth.Candidate, len(entries))
	var wg sync.WaitGroup
	for i := range entries {
		wg.Add(1)
		go func() {
			defer wg.Done()
			asked := completed(spec, &entries[i])
			candidates[i] = h.candidate(settling, &entries[i], &asked)
			candidates[i].Order = i
		}()
	}
	wg.Wait()
	berth.ByRoom(candidates)
	return candidates
}

// candidate tells how an infrastructure stands: by what is seen of it here, or,
// where another server holds it, by what is stored.
func (h *Host) candidate(ctx context.Context, entry *berth.InfrastructureConfig, spec *berth.TaskSpec) berth.Candidate {
	if h.fleet != nil && !h.isStarted(entry.Name) {
		live, err := h.store.CountUnended(ctx, entry.Name)
		_, held, _ := h.fleet.keeper.Holder(entry.Name)
		return berth.Candidate{Name: entry.Name, Ready: err == nil && held, Live: live, MaxPods: max(1, entry.Limits.MaxPods)}
	}
	if err := h.start(ctx, entry.Name); err != nil {
		return berth.Candidate{Name: entry.Name}
	}
	h.engine.Settle(ctx, entry.Name)
	return h.engine.Candidate(entry.Name, spec)
}

func (h *Host) isStarted(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.started[name]
	return ok
}

// completed is a spec with what an infrastructure says where it says nothing.
func completed(spec *berth.TaskSpec, entry *berth.InfrastructureConfig) berth.TaskSpec {
	c := *spec
	c.Infrastructure = entry.Name
	if c.CPU == "" {
		c.CPU = entry.Defaults.CPU
	}
	if c.Memory == "" {
		c.Memory = entry.Defaults.Memory
	}
	return c
}

// movedAtOnce bounds how many tasks go from one infrastructure to another at a time.
const movedAtOnce = 100

// balance lets tasks whose place was chosen wait where they would begin sooner.
func (h *Host) balance(ctx context.Context) {
	h.mu.Lock()
	entries := map[string]berth.InfrastructureConfig{}
	for name, r := range h.started {
		entries[name] = r.entry
	}
	h.mu.Unlock()
	for from := range entries {
		home := h.engine.Candidate(from, nil)
		if home.Queued == 0 {
			continue
		}
		for to := range entries {
			away := h.engine.Candidate(to, nil)
			most := min(berth.Moves(home, away), movedAtOnce)
			if to == from || most == 0 {
				continue
			}
			entry := entries[to]
			home.Queued -= h.moveSome(ctx, home, &entry, most)
		}
	}
}

func (h *Host) moveSome(ctx context.Context, from berth.Candidate, entry *berth.InfrastructureConfig, most int) int {
	var lives []*berth.Life
	for _, life := range h.engine.Front(ctx, from.Name, most) {
		spec := &life.Task.Spec
		if len(lives) == most || !slices.Contains(life.Among, entry.Name) || h.lacks(ctx, entry, spec) != "" {
			continue
		}
		asked, err := h.resolved(ctx, entry, spec)
		if err != nil || asked.Image != spec.Image { // which its nodes may get from another registry
			continue
		}
		if now, err := h.engine.Fits(ctx, entry.Name, asked); err != nil || !now {
			continue
		}
		lives = append(lives, life)
	}
	if len(lives) == 0 {
		return 0
	}
	why := "there is room"
	switch {
	case !from.Ready:
		why = from.Name + " is out of reach"
	case from.Held:
		why = "a quota of " + from.Name + " is used up"
	}
	return h.engine.Move(ctx, from.Name, entry.Name, why, lives, func(l *berth.Life) string {
		return shareOf(entry, l.Task.Owner, l.Task.Spec.Labels)
	})
}
