// Package engine runs tasks: one loop an infrastructure takes in what people
// ask for and what the cluster shows, lets the state machine of package berth
// decide, stores the decision, and only then acts. What is to be done follows
// from what is stored, so a loop that starts after a crash goes on where the
// one before it was.
//
//	submissions, cancels ─┐                      ┌─> create, delete   (Driver)
//	observations ─────────┼─> step ─> commit ──> ┼─> follow logs      (Driver, Logs)
//	results of calls ─────┘   pure    one        └─> watchers         (hub)
//	                                  transaction
//
// It knows no Kubernetes and no SQL: those are a Driver and a Store.
package engine

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// Driver runs attempts on one infrastructure. Methods are safe for concurrent
// use. None changes anything twice when it is called twice.
type Driver interface {
	// Watch reports pods of the instance to the sink until the context ends.
	// It lists first and again whenever it may have missed something, and
	// reports what keeps it from watching. It returns only when ctx is done.
	Watch(ctx context.Context, sink Sink)

	// Preflight says whether the pod of an attempt would be accepted, and makes
	// nothing. An error is a *Refusal. It is quick: what was accepted a moment
	// ago is not asked about again, and nil is also for what nobody can tell.
	Preflight(ctx context.Context, order Order) error

	// Create makes the pod of an attempt and returns its UID. Permanent and
	// passing refusals are a *Refusal.
	Create(ctx context.Context, order Order) (uid string, err error)

	// Find looks for the pod of an attempt: its UID and whether it is ours.
	// Errors are a *Refusal, RefusedNotFound among them.
	Find(ctx context.Context, order Order) (uid string, ours bool, err error)

	// Vouch says whether a pod of that name may have existed since, from what
	// the cluster remembers of it. An error means that nobody can tell.
	Vouch(ctx context.Context, pod string, since time.Time) (existed bool, err error)

	// Delete deletes a pod with that UID and no other, and says what became of
	// it. A pod that was gone before is no error. A negative grace means the
	// pod's own; zero is at once.
	Delete(ctx context.Context, pod, uid string, grace time.Duration) (Deletion, error)

	// Logs opens the log of a pod's main container from a time on, each line
	// with its time and a space: or '>' where it is known to be of stdout, and
	// '^' where it is of stderr. See also [WholeLog].
	Logs(ctx context.Context, pod string, since time.Time, follow bool) (io.ReadCloser, error)

	// Usage tells, by pod, what the main containers of the instance's running
	// pods use; those of which nothing is known yet are left out. An error that
	// is an *Unmetered says that nothing can be known for a while.
	Usage(ctx context.Context) (map[string]berth.Reading, error)

	// Identity tells what the infrastructure is: the UID of its namespace.
	// Empty without an error where that can't be asked. Errors are a *Refusal.
	Identity(ctx context.Context) (string, error)

	// Server returns the address that is connected to.
	Server() string

	// Version returns the version of the API server.
	Version(ctx context.Context) (string, error)

	// Check compares what is granted with what is needed.
	Check(ctx context.Context) (berth.InfrastructureCheck, error)

	// WatchQuota calls changed whenever the quotas of the namespace change,
	// until the context ends, or returns at once with an error where that
	// can't be seen.
	WatchQuota(ctx context.Context, changed func()) error
}

// Forwarder is a Driver that reaches into pods.
type Forwarder interface {
	// Forward connects to a TCP port on the loopback of a pod. That nobody
	// listens there is told by the connection, not by the call. The connection
	// outlives ctx, and has no deadlines. Errors are a *Refusal, or those of ctx.
	Forward(ctx context.Context, pod string, port int) (net.Conn, error)
}

// SecretKeeper is a Driver that keeps Secrets which belong to no pod. Errors are
// a *Refusal.
type SecretKeeper interface {
	// CreateSecret makes a Secret that never changes, or with dryRun only finds
	// out whether that may be done. One of the same instance, by its label, that is
	// there already stays as it is; RefusedExists for another's.
	CreateSecret(ctx context.Context, name string, labels map[string]string, data map[string][]byte, dryRun bool) error

	// Secret returns what a Secret holds; RefusedNotFound when there is none.
	Secret(ctx context.Context, name string) (map[string][]byte, error)

	// DeleteSecret deletes a Secret of an instance. One that isn't there, or is
	// another's, is no error.
	DeleteSecret(ctx context.Context, name, instance string) error
}

// Sink takes in what a Driver sees. The calls don't block.
type Sink interface {
	// Listed: these are all pods of the instance that existed at some time
	// after began, when the listing was asked for.
	Listed(pods []berth.Observation, began time.Time)
	// Observed: one pod changed, or is gone.
	Observed(pod berth.Observation)
	// Lost: nothing is seen at the moment, and why.
	Lost(refusal *Refusal)
}

// Deletion is what became of a pod that was to be deleted.
type Deletion int

const (
	DeletionGone    Deletion = iota // it doesn't exist any more
	DeletionGoing                   // it has still to end, and goes away by itself then
	DeletionStopped                 // it ends, and stays until it is deleted once more: its outcome and log can be read
)

// Unmetered says why an infrastructure doesn't tell what its pods use: it is
// not granted, or there is nobody who measures.
type Unmetered struct{ Reason string }

func (u *Unmetered) Error() string { return u.Reason }

// Order is what a driver needs to make the pod of an attempt.
type Order struct {
	Instance string
	TaskID   string
	Attempt  int
	Pod      string
	ImageID  string // of the first attempt: a retry runs the same image
	Spec     berth.TaskSpec
	Agent    *Agent // nil for a plain task
	Proxy    *Proxy // nil where the infrastructure has none

	// SecretEnv are variables whose values nobody may read in the pod's spec.
	SecretEnv []SecretVar

	// Unwanted is closed when the pod is no longer wanted. A driver that has to
	// wait for something before it makes it may give up then.
	Unwanted <-chan struct{}
}

// SecretVar is a variable with a secret value.
type SecretVar struct {
	Name  string
	Value berth.Secret
}

// Agent is what a driver needs to start the agent as PID 1 of the main
// container, in place of the image's own command.
type Agent struct {
	// Order is for the agent's environment (Order.Env). The driver fills in
	// Message, and Call.Secrets with where it puts the values of Secrets.
	Order agent.Order

	Inject  bool                                  // the image doesn't have the agent
	Image   string                                // to inject it from, where containers can't be written into before they start
	Binary  func(platform string) ([]byte, error) // the agent itself, for os/arch such as linux/amd64
	Secrets []SecretInput

	// Registry is how to log in where the task's image, and the agent's, are
	// pulled from; nil where no login is known.
	Registry *RegistryLogin

	// Load writes the image of the task, for a platform, as docker load takes
	// it; nil where it is pulled.
	Load func(ctx context.Context, platform string, w io.Writer) error
}

// Proxy is what a driver needs to send what a pod sends through the proxy of
// its infrastructure.
type Proxy struct {
	Image    string // that has the agent, which does it
	Registry *RegistryLogin
}

// Login is how to log in where the images of an order are pulled from; nil
// where no login is known.
func (o *Order) Login() *RegistryLogin {
	switch {
	case o.Agent != nil && o.Agent.Registry != nil:
		return o.Agent.Registry
	case o.Proxy != nil:
		return o.Proxy.Registry
	}
	return nil
}

// RegistryLogin is a user and a password of a registry.
type RegistryLogin struct {
	Host     string // HOST[:PORT]
	Username string
	Password berth.Secret
	Instance string // whose Secret of a cluster holds it; empty: the order's
}

// SecretInput is the value of a secret input, for this attempt alone.
type SecretInput struct {
	Input string
	Value berth.Secret
	Ref   *SecretRef // instead of Value: it is in the infrastructure already
}

// SecretRef names a key of a Kubernetes Secret.
type SecretRef struct{ Name, Key string }

// Refused is the kind of a Refusal.
type Refused int

const (
	RefusedPermanent    Refused = iota // never accepted: the task fails
	RefusedExists                      // a pod of that name exists
	RefusedNotFound                    // no such pod
	RefusedQuota                       // wait until the quota changes
	RefusedTransient                   // try again soon
	RefusedUnreachable                 // no answer: the infrastructure is out of reach
	RefusedUnknown                     // it may or may not have been done
	RefusedUnauthorized                // credentials are not accepted
	RefusedForbidden                   // the role lacks a verb
)

// Refusal is an error of a cluster, told apart by what is to be done about it.
type Refusal struct {
	Kind      Refused
	Diagnosis *berth.Diagnosis
	Patience  berth.Patience
	Hopeless  bool // the same order will not be accepted, however long it waits
	Err       error
}

func (r *Refusal) Error() string {
	if r.Diagnosis != nil {
		return r.Diagnosis.Summary
	}
	return r.Err.Error()
}

func (r *Refusal) Unwrap() error { return r.Err }

// LogStore keeps output.
type LogStore interface {
	// Append opens the log of an attempt; fresh says that no process can have
	// written it before.
	Append(task string, attempt int, fresh bool) (LogWriter, error)
	Notify(task string, attempt int)
}

// LogWriter appends the output of one attempt; see package logs.
type LogWriter interface {
	Copy(r io.Reader, rotates bool) error
	Last() time.Time
	Ended(at time.Time) // when the program ended, before its log is read for the last time
	Streams() bool      // the log began with what says that stderr is marked in it
	Unjoined() bool     // the last stream had nothing, not even the last line that is stored
	Gap(why string) error
	Seal() error
	Close() error
}

// WholeLog is a log stream, of [Driver.Logs], that never goes over to another
// file: an Engine of Docker gives all that there is.
type WholeLog interface{ WholeLog() }

// Store keeps lives and events; see package store.
type Store interface {
	Instance() string
	Commit(ctx context.Context, changes []berth.Change) error
	Life(ctx context.Context, id string) (*berth.Life, error)
	ByKey(ctx context.Context, key string) (*berth.Life, error)
	NewestTask(ctx context.Context) (id string, err error)
	Live(ctx context.Context, infrastructure string) ([]*berth.Life, error)
	Shares(ctx context.Context, infrastructure string) (map[string]int, error)
	Queued(ctx context.Context, infrastructure, share string, after *berth.Life, limit int) ([]*berth.Life, error)
	AddArray(ctx context.Context, key string, array *berth.Array, next func() (*berth.Change, error)) error
	Array(ctx context.Context, id string) (berth.Array, error)
	ArrayByKey(ctx context.Context, key string) (berth.Array, error)
	ArrayTasks(ctx context.Context, id string, states []berth.TaskState, after, limit int) (ids []string, last int, err error)
	CancelArray(ctx context.Context, id string, now time.Time) error
	CancelledArrays(ctx context.Context, infrastructure string) ([]string, error)
	SaveMeters(ctx context.Context, metered []berth.Metered) error
	Meters(ctx context.Context, tasks []string) ([]berth.Metered, error)
	Metered(ctx context.Context, taskID string, attempt int) (*berth.Metered, error)
	Identity(ctx context.Context, name string) (address, identity string, err error)
	SetIdentity(ctx context.Context, name, address, identity string, now time.Time) error
}
