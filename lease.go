package berth

import (
	"errors"
	"time"
)

// Lease is the right to reconcile an infrastructure, where several servers
// share a store: one holds it at a time. Fence is greater than that of whoever
// held it before.
type Lease struct {
	Infrastructure string
	Holder         string // id of a Server
	Fence          int64
}

// LeaseLength is how long a lease, and a server, is good after it was renewed,
// by the clock of the store.
const LeaseLength = 15 * time.Second

// ErrFenced says that a lease isn't held any more: nothing was stored.
var ErrFenced = errors.New("the lease of this infrastructure is another server's by now")

// Server is one of the servers that share a store.
type Server struct {
	ID              string
	URL             string   // where the others reach it
	CA              string   // PEM that its certificate is verified by, beside the system's
	Infrastructures []string // that it can reconcile
}

// Sharing is who shares a store, and who holds what, as it was at one moment.
type Sharing struct {
	Servers []Server // that are there
	Leases  []Lease  // that have not run out
	Renewed []string // infrastructures whose lease was renewed just now
}
