package berth

import (
	"context"
	"slices"
	"strings"
)

// Role is what a caller may do. Each includes the ones before it.
type Role string

const (
	RoleRead  Role = "read"  // see their own tasks, infrastructures, metrics; pull packages
	RoleWrite Role = "write" // submit and cancel tasks, check infrastructures, push packages
	RoleAdmin Role = "admin" // see and cancel everyone's tasks, manage infrastructures and tokens
)

// Roles are all roles, the least one first.
var Roles = []Role{RoleRead, RoleWrite, RoleAdmin}

// Includes reports whether whoever has this role may do what another role may.
func (r Role) Includes(other Role) bool {
	at, wanted := slices.Index(Roles, r), slices.Index(Roles, other)
	return at >= 0 && wanted >= 0 && at >= wanted
}

// Caller is who asks something of a Service. Its rules are the whole of who
// may do what; whoever serves a Service on data of several people applies them.
type Caller struct {
	Name            string   // the owner of what they submit
	Role            Role     // what they may do
	Infrastructures []string // where they may do it; empty: everywhere
}

type callerKey struct{}

// WithCaller returns a context in which a Service is asked by that caller.
func WithCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// CallerFrom returns who asks. Without one it is the local user of the data
// directory, who may do everything.
func CallerFrom(ctx context.Context) (Caller, bool) {
	caller, ok := ctx.Value(callerKey{}).(Caller)
	return caller, ok
}

// MayUse reports whether the caller's scope includes an infrastructure.
func (c Caller) MayUse(infrastructure string) bool {
	return len(c.Infrastructures) == 0 || slices.Contains(c.Infrastructures, infrastructure)
}

// MaySee reports whether the caller may know of a task. To everybody else it
// is as if there were none.
func (c Caller) MaySee(task *Task) bool {
	return c.MayUse(task.Infrastructure) && (c.Role == RoleAdmin || c.Role.Includes(RoleRead) && c.Name == task.Owner)
}

// MayCancel reports whether the caller may change a task's course.
func (c Caller) MayCancel(task *Task) bool {
	return c.MaySee(task) && c.Role.Includes(RoleWrite)
}

// MaySubmit reports whether the caller may run tasks on an infrastructure, and
// check what is granted there.
func (c Caller) MaySubmit(infrastructure string) bool {
	return c.Role.Includes(RoleWrite) && c.MayUse(infrastructure)
}

// MayAdminister reports whether the caller may change infrastructures and
// tokens. An admin whose scope is some infrastructures may not: they could
// give themselves the others.
func (c Caller) MayAdminister() bool {
	return c.Role == RoleAdmin && len(c.Infrastructures) == 0
}

// MayUseSecret reports whether the caller's functions may be given a key of
// secrets.yml, which also holds what clusters are logged in to with: an
// unrestricted admin's any, others' those that begin with their name and a slash.
func (c Caller) MayUseSecret(key string) bool {
	return c.MayAdminister() || strings.HasPrefix(key, c.Name+"/")
}
