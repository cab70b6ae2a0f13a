package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
	"github.com/berth-run/berth/internal/store"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// server is one of several on a database, with a clock of its own.
type server struct {
	*Keeper
	id    string
	store *store.Store

	mu    sync.Mutex
	skew  time.Duration
	works map[string]bool // what it was told to reconcile
	has   []string        // infrastructures
}

func (s *server) now() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return boottime() + s.skew
}

// sleep lets a server's clock go on, as if its machine had slept.
func (s *server) sleep(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew += d
}

func (s *server) reconciles() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.works {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// serve starts a server whose clock is off by skew.
func serve(t *testing.T, address, id string, skew time.Duration, infrastructures ...string) *server {
	t.Helper()
	st, err := store.OpenURL(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s := &server{id: id, store: st, skew: skew, works: map[string]bool{}, has: infrastructures}
	s.Keeper, err = Open(t.Context(), st, Config{
		Self: func() berth.Server {
			s.mu.Lock()
			defer s.mu.Unlock()
			return berth.Server{ID: id, URL: "https://" + id, Infrastructures: slices.Clone(s.has)}
		},
		Taken: func(_ context.Context, name string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.works[name] = true
			return nil
		},
		Dropped: func(name string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.works, name)
		},
		Now: s.now,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Begin()
	t.Cleanup(func() { s.Close(context.Background()) }) //nolint:errcheck // the database may be gone
	return s
}

// learns gives a server one infrastructure more.
func (s *server) learns(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has = append(s.has, name)
}

// die ends a server as kill -9 does: nothing is released.
func (s *server) die() {
	s.cancel()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	s.works = map[string]bool{}
}

func within(t *testing.T, limit time.Duration, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !met(); {
		if time.Now().After(deadline) {
			t.Fatal("it took too long until " + what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shared reports whether each infrastructure is reconciled by one server.
func shared(names []string, servers ...*server) bool {
	var all []string
	for _, s := range servers {
		for _, name := range s.reconciles() {
			if !s.Reconciles(name) {
				return false
			}
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Equal(all, names)
}

// pass lets time pass in the database: leases of a server, and it, run out.
func pass(t *testing.T, address, id string) {
	t.Helper()
	for _, update := range []string{"UPDATE leases SET expires_at = clock_timestamp() WHERE holder = ", "UPDATE servers SET expires_at = clock_timestamp() WHERE id = "} {
		pgtest.Do(t, address, update+"'"+id+"'")
	}
}

func TestInfrastructuresMoveAsServersComeAndGo(t *testing.T) {
	t.Parallel()
	address, four := pgtest.URL(t), numbered(4)
	// No clock but the database's says who holds what.
	a := serve(t, address, "a", 0, four...)
	within(t, 10*time.Second, "one has them all", func() bool { return shared(four, a) })
	b := serve(t, address, "b", 1000*time.Hour, four...)
	within(t, 10*time.Second, "two share them", func() bool { return shared(four, a, b) && len(b.reconciles()) == 2 })
	c := serve(t, address, "c", -100*time.Hour, four...)
	within(t, 10*time.Second, "three share them", func() bool { return shared(four, a, b, c) && len(c.reconciles()) == 1 })
	within(t, 5*time.Second, "a knows what c has", func() bool {
		holder, ok, _ := a.Holder(c.reconciles()[0])
		return ok && holder.URL == "https://c"
	})

	began := time.Now()
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "those that stayed share them", func() bool { return shared(four, b, c) })
	t.Logf("%s after a left", time.Since(began).Round(time.Millisecond))

	b.die()
	pass(t, address, "b")
	within(t, 10*time.Second, "the last one has them all", func() bool { return shared(four, c) })
}

// Nobody tells the others that a server died: its leases run out by themselves.
func TestLeasesOfADeadServerAreTakenWithin20Seconds(t *testing.T) {
	t.Parallel()
	address, two := pgtest.URL(t), numbered(2)
	a := serve(t, address, "a", 0, two...)
	b := serve(t, address, "b", 0, two...)
	within(t, 10*time.Second, "two share them", func() bool { return shared(two, a, b) && len(b.reconciles()) == 1 })
	began := time.Now()
	a.die()
	within(t, 20*time.Second, "the other has both", func() bool { return shared(two, b) })
	t.Logf("%s after a died", time.Since(began).Round(time.Millisecond))
}

// A holder that was paused knows at once that it may not go on, before it has
// asked anybody, and stores nothing.
func TestAPausedHolderMayDoNothing(t *testing.T) {
	t.Parallel()
	address := pgtest.URL(t)
	a := serve(t, address, "a", 0, "site")
	within(t, 10*time.Second, "it is taken", func() bool { return shared([]string{"site"}, a) })
	old, ok := a.Lease("site")
	if !ok {
		t.Fatal("no lease")
	}
	if left := a.Left("site"); left <= 0 || left > validFor {
		t.Errorf("it may act for %s", left)
	}

	a.die() // paused: its loop doesn't run, and its clock does
	a.sleep(validFor)
	if a.Valid("site") || a.Left("site") > 0 {
		t.Fatal("it thinks that it may act")
	}
	b := serve(t, address, "b", 0, "site")
	if _, ok, err := b.store.Acquire(t.Context(), "site", "b"); ok || err != nil {
		t.Fatalf("it was let go of before the lease ran out: %v, %v", ok, err)
	}
	pass(t, address, "a")
	within(t, 10*time.Second, "the other has it", func() bool { return shared([]string{"site"}, b) })
	if err := a.store.CommitUnder(t.Context(), old, nil); !errors.Is(err, berth.ErrFenced) {
		t.Errorf("it stored something: %v", err)
	}
	if err := a.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Valid("site") {
		t.Error("asked again, it thinks that it may act")
	}
}

func TestHoldersOutliveARestartOfTheDatabase(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	a := serve(t, database.Database(t), "a", 0, "site")
	within(t, 10*time.Second, "it is taken", func() bool { return shared([]string{"site"}, a) })
	before, _ := a.Lease("site")
	database.Stop(syscall.SIGQUIT)
	a.sleep(validFor)
	if a.Valid("site") {
		t.Error("without a database it may act for ever")
	}
	if err := database.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "it may act again", func() bool { return shared([]string{"site"}, a) })
	if after, _ := a.Lease("site"); after != before {
		t.Errorf("nobody took it, and it went from %+v to %+v", before, after)
	}
}

// What can't be taken up is tried again, and is held meanwhile.
func TestAnInfrastructureThatCannotBeTakenUpIsTriedAgain(t *testing.T) {
	t.Parallel()
	st, err := store.OpenURL(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	tried := make(chan int, 10)
	n := 0
	k, err := Open(t.Context(), st, Config{
		Self: func() berth.Server { return berth.Server{ID: "a", Infrastructures: []string{"site"}} },
		Taken: func(context.Context, string) error {
			n++
			tried <- n
			if n == 1 {
				return fmt.Errorf("its kubeconfig is gone")
			}
			return nil
		},
		Dropped: func(string) {},
		Log:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	k.Begin()
	defer k.Close(context.Background()) //nolint:errcheck // the test is over
	for want := 1; want <= 2; want++ {
		select {
		case <-tried:
		case <-time.After(20 * time.Second):
			t.Fatal("not tried again")
		}
		if want == 1 {
			within(t, 5*time.Second, "it says why it can't", func() bool { return k.Trouble("site") != nil && !k.Reconciles("site") })
		}
	}
	within(t, 5*time.Second, "it is reconciled", func() bool { return k.Reconciles("site") && k.Trouble("site") == nil })
}

// Whoever adds an infrastructure goes on to use it: that is not to wait for the
// next renewal.
func TestAnInfrastructureThatIsAddedIsTakenAtOnce(t *testing.T) {
	s := serve(t, pgtest.URL(t), "a", 0, "one")
	within(t, 10*time.Second, "it holds the first", func() bool { return s.Reconciles("one") })
	for _, name := range []string{"two", "three", "four"} {
		s.learns(name)
		began := time.Now()
		s.Nudge()
		within(t, 10*time.Second, "it holds "+name, func() bool { return s.Reconciles(name) })
		if took := time.Since(began); took > renewEvery/2 {
			t.Errorf("it took %s to hold %s", took, name)
		}
	}
}
