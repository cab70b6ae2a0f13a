// Package lease decides which of several servers on one store reconciles which
// infrastructure. A server's Keeper renews the leases that it holds, takes those
// that are its share, and gives away what is too much; whoever acts on an
// infrastructure asks it whether they still may. What a lease is, and whose, is
// said by the store alone and timed by its clock; see berth.Lease.
package lease

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth"
)

const (
	// renewEvery leaves room for a renewal that fails.
	renewEvery = 5 * time.Second
	// validFor is how long a holder acts on its own after it asked for a
	// renewal: well before the store lets others in.
	validFor = 10 * time.Second
	// lookEvery is how soon a server sees what others gave away, or left.
	lookEvery = time.Second
	// askTimeout bounds one question to the store.
	askTimeout = 4 * time.Second
)

// Store keeps leases; see package store.
type Store interface {
	Heartbeat(ctx context.Context, self berth.Server, held []berth.Lease) (berth.Sharing, error)
	Sharing(ctx context.Context) (berth.Sharing, error)
	Acquire(ctx context.Context, infrastructure, server string) (lease berth.Lease, ok bool, err error)
	Release(ctx context.Context, lease berth.Lease) error
	Leave(ctx context.Context, server string) error
}

// Config says who keeps leases, and what follows from having one.
type Config struct {
	Self  func() berth.Server // as it is now; its ID never changes
	Taken func(ctx context.Context, infrastructure string) error
	// Dropped returns when nothing is done for the infrastructure any more.
	Dropped func(infrastructure string)
	Log     *slog.Logger

	// Now is a clock that never goes back and goes on while the machine sleeps;
	// nil for this machine's.
	Now func() time.Duration
}

// Keeper keeps the leases of one server. Methods are safe for concurrent use.
type Keeper struct {
	config Config
	store  Store
	cancel context.CancelFunc
	done   chan struct{}
	after  chan func(context.Context) // what the keeper's goroutine is to do
	nudged chan struct{}
	work   sync.WaitGroup // Taken and Dropped under way

	mu      sync.Mutex
	held    map[string]*holding
	sharing berth.Sharing
	changed chan struct{} // closed when sharing or held did
}

// holding is a lease that this server has, as far as it knows.
type holding struct {
	lease   berth.Lease
	until   time.Duration // by Now
	started bool          // Taken succeeded
	busy    bool          // Taken or Dropped is under way
	lost    bool          // it isn't held any more: nothing is to be released
	retryAt time.Duration // of Taken, where it failed
	trouble error         // why it did
}

// boottime is CLOCK_BOOTTIME: a machine that slept knows that it did.
func boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("lease: no CLOCK_BOOTTIME: " + err.Error()) // every Linux has it
	}
	return time.Duration(t.Nano())
}

// Open joins the servers that share a store. Leases are kept from Begin on.
func Open(ctx context.Context, store Store, c Config) (*Keeper, error) {
	if c.Now == nil {
		c.Now = boottime
	}
	k := &Keeper{config: c, store: store, done: make(chan struct{}), after: make(chan func(context.Context), 16), nudged: make(chan struct{}, 1), held: map[string]*holding{}, changed: make(chan struct{})}
	if err := k.renew(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Begin begins to keep leases.
func (k *Keeper) Begin() {
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(context.Background())
	go k.run(ctx)
}

// Nudge has the keeper tell the others at once what infrastructures there are
// now, and take those that are this server's share.
func (k *Keeper) Nudge() {
	select {
	case k.nudged <- struct{}{}:
	default:
	}
}

// Lease returns the lease of an infrastructure, while this server may act on it.
func (k *Keeper) Lease(infrastructure string) (berth.Lease, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[infrastructure]
	if h == nil || h.lost || k.config.Now() >= h.until {
		return berth.Lease{}, false
	}
	return h.lease, true
}

// Valid reports whether this server may act on an infrastructure at this moment.
func (k *Keeper) Valid(infrastructure string) bool {
	_, ok := k.Lease(infrastructure)
	return ok
}

// Left is how long this server may act on an infrastructure without being told
// again that it may.
func (k *Keeper) Left(infrastructure string) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.held[infrastructure]; h != nil && !h.lost {
		return max(0, h.until-k.config.Now())
	}
	return 0
}

// Reconciles reports whether this server has taken up an infrastructure, and may
// act on it.
func (k *Keeper) Reconciles(infrastructure string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[infrastructure]
	return h != nil && h.started && !h.busy && !h.lost && k.config.Now() < h.until
}

// Trouble says why an infrastructure that this server holds was not taken up; nil
// where it was, or is being.
func (k *Keeper) Trouble(infrastructure string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.held[infrastructure]; h != nil {
		return h.trouble
	}
	return nil
}

// Holder returns the server that held an infrastructure when it was last looked
// at. changed is closed when that may be another.
func (k *Keeper) Holder(infrastructure string) (server berth.Server, ok bool, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, lease := range k.sharing.Leases {
		if lease.Infrastructure != infrastructure {
			continue
		}
		for _, server := range k.sharing.Servers {
			if server.ID == lease.Holder {
				return server, true, k.changed
			}
		}
	}
	return berth.Server{}, false, k.changed
}

// Sharing returns who was there, and held what, when it was last looked at.
func (k *Keeper) Sharing() berth.Sharing {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sharing
}

// Close gives everything away and leaves.
func (k *Keeper) Close(ctx context.Context) error {
	if k.cancel != nil {
		k.cancel()
		<-k.done
	}
	k.work.Wait()
	var drops sync.WaitGroup
	k.mu.Lock()
	for name, h := range k.held {
		if h.started {
			drops.Go(func() { k.config.Dropped(name) })
		}
	}
	k.mu.Unlock()
	drops.Wait()
	k.mu.Lock()
	k.held = map[string]*holding{}
	k.mu.Unlock()
	return k.store.Leave(ctx, k.config.Self().ID)
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	renewed := k.config.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case fn := <-k.after:
			fn(ctx)
			continue
		case <-k.nudged:
			renewed -= renewEvery
		case <-time.After(lookEvery):
		}
		var err error
		if now := k.config.Now(); now-renewed >= renewEvery {
			if err = k.renew(ctx); err == nil {
				renewed = now
			}
		} else {
			err = k.look(ctx)
		}
		if err != nil {
			if ctx.Err() == nil {
				k.config.Log.Warn("leases can't be looked after", "error", err)
			}
			continue
		}
		k.rebalance(ctx)
	}
}

// renew renews what is held, and finds out what no longer is.
func (k *Keeper) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var leases []berth.Lease
	k.mu.Lock()
	for _, h := range k.held {
		if !h.lost {
			leases = append(leases, h.lease)
		}
	}
	k.mu.Unlock()
	before := k.config.Now() // the store counts from later on
	sharing, err := k.store.Heartbeat(ctx, k.config.Self(), leases)
	if err != nil {
		return err
	}
	renewed := map[string]bool{}
	for _, name := range sharing.Renewed {
		renewed[name] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, lease := range leases {
		h := k.held[lease.Infrastructure]
		if h == nil || h.lease != lease {
			continue
		}
		if renewed[lease.Infrastructure] {
			h.until = before + validFor
			continue
		}
		k.config.Log.Warn("the lease of an infrastructure is another server's by now", "infrastructure", lease.Infrastructure)
		h.lost = true
	}
	k.seenLocked(sharing)
	return nil
}

func (k *Keeper) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	sharing, err := k.store.Sharing(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seenLocked(sharing)
	return nil
}

func (k *Keeper) seenLocked(sharing berth.Sharing) {
	k.sharing = sharing
	close(k.changed)
	k.changed = make(chan struct{})
}
