// Package compute keeps compute clusters: a head and groups of workers of an
// engine such as Dask, each of which is a task like others. It decides how many
// workers there are, replaces those that were lost, has those that are too many
// finish what they compute, and ends what nobody uses. What it decides is stored
// before it is done, so whoever goes on after a crash does as the one before
// would have.
package compute

import (
	"context"
	"net"
	"time"

	"github.com/berth-run/berth"
)

// Engine is what runs on a cluster's pods.
type Engine interface {
	// Files are what all pods of a cluster find beside its keys, by name.
	Files() map[string][]byte
	// Head completes the task of a cluster's head.
	Head(c *berth.Cluster, spec *berth.TaskSpec)
	// Worker completes the task of a worker, for a head at an IP address.
	Worker(c *berth.Cluster, g *berth.ClusterGroup, head string, spec *berth.TaskSpec)
	// Port is where the head listens: for clients on its address, and for the
	// dashboard on its loopback.
	Port(berth.ClusterPort) int
	// Connect returns what drives a cluster's head. Dial connects to its
	// dashboard's port.
	Connect(c *berth.Cluster, dial func(context.Context) (net.Conn, error)) Head
}

// Head drives the head of a cluster by the engine's own HTTP API.
type Head interface {
	// State tells how the cluster stands as the engine sees it.
	State(ctx context.Context) (*State, error)
	// Drain has workers begin nothing any more; State tells when what they
	// computed has ended and what they held is with others. Doing it twice is
	// doing it once. Names that the head doesn't know are left out.
	Drain(ctx context.Context, workers []string) error
	Close()
}

// State is how a cluster stands as its engine sees it.
type State struct {
	Versions   map[string]string // of the head: python, and packages
	Mark       string            // changes whenever anything was computed
	Clients    int               // that are connected
	Alone      *time.Duration    // since when none is; nil: not known
	Unfinished int               // what was asked for and is not there
	Target     int               // how many workers the engine would like to have
	Workers    map[string]Worker // by the names of their pods
}

// Worker is a worker as the engine sees it.
type Worker struct {
	Running   bool
	Executing int // what it computes now
	Pending   int // what was given to it, and is not there
	Versions  map[string]string
	Draining  bool
	Drained   bool   // it may end
	Trouble   string // why it can't be drained at the moment
}

// Idle reports whether a worker computes nothing and has nothing to compute.
func (w *Worker) Idle() bool { return w.Executing == 0 && w.Pending == 0 }
