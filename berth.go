// Package berth is the domain of Berth: containerised work on Kubernetes
// namespaces that people were given, on clusters that they don't own.
//
// It holds the types, the state machine of a task as pure functions, the error
// codes and the [Service] interface. It knows nothing of Kubernetes, SQL or
// HTTP: those are adapters below internal/. It is also the public Go API;
// package client opens a [Service], on the embedded store or on a server.
package berth

import "time"

// Labels that Berth sets on everything that it creates in a namespace.
const (
	LabelManagedBy      = "app.kubernetes.io/managed-by"
	LabelManagedByValue = "berth"
	LabelInstance       = "berth.run/instance"
	LabelTask           = "berth.run/task"
	LabelAttempt        = "berth.run/attempt"
	LabelName           = "berth.run/name"
)

// Exit codes of the commands that stand for a task (run, wait), beside the
// container's own. The first two follow docker run and coreutils' timeout.
const (
	ExitNone      = 125 // no exit code of a container: Berth failed, image not found, lost
	ExitTimedOut  = 124 // the task's --timeout passed
	ExitCancelled = 130 // cancelled
)

// Info describes what answers a Service: the program and its store.
type Info struct {
	Version  string `json:"version"`
	Instance string `json:"instance"` // id of the store, a label of all that it creates
	DataDir  string `json:"dataDir"`
	PID      int    `json:"pid"`
}

// timePtr returns nil for the zero time, so that an absent time is null in JSON.
func timePtr(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	u := t.UTC()
	return &u
}
