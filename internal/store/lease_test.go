package store

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
)

// twoStores are those of two servers on one database.
func twoStores(t *testing.T) (a, b *Store, address string) {
	t.Helper()
	address = pgtest.URL(t)
	return openedURL(t, address), openedURL(t, address), address
}

func joined(t *testing.T, s *Store, id string, infrastructures ...string) {
	t.Helper()
	if _, err := s.Heartbeat(t.Context(), berth.Server{ID: id, URL: "https://" + id, CA: "ca of " + id, Infrastructures: infrastructures}, nil); err != nil {
		t.Fatal(err)
	}
}

func acquired(t *testing.T, s *Store, infrastructure, server string) berth.Lease {
	t.Helper()
	lease, ok, err := s.Acquire(t.Context(), infrastructure, server)
	if err != nil || !ok {
		t.Fatalf("%s did not get %s: %v", server, infrastructure, err)
	}
	return lease
}

// expire lets time pass for a lease, by the only clock that counts.
func expire(t *testing.T, s *Store, infrastructure string) {
	t.Helper()
	if _, err := s.write.ExecContext(t.Context(), "UPDATE leases SET expires_at = clock_timestamp() - interval '1 second' WHERE infrastructure = ?", infrastructure); err != nil {
		t.Fatal(err)
	}
}

func TestServersThatShareAStoreKnowEachOther(t *testing.T) {
	a, b, _ := twoStores(t)
	joined(t, a, "a", "here", "there")
	joined(t, b, "b", "here")
	lease := acquired(t, a, "here", "a")
	sharing, err := b.Sharing(t.Context())
	if err != nil || len(sharing.Servers) != 2 || len(sharing.Leases) != 1 || sharing.Leases[0] != lease {
		t.Fatalf("%+v, %v", sharing, err)
	}
	if got := sharing.Servers[0]; got.ID != "a" || got.URL != "https://a" || got.CA != "ca of a" || !slices.Equal(got.Infrastructures, []string{"here", "there"}) {
		t.Errorf("%+v", got)
	}
	if err := a.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	sharing, err = b.Sharing(t.Context())
	if err != nil || len(sharing.Servers) != 1 || len(sharing.Leases) != 0 {
		t.Errorf("after a left: %+v, %v", sharing, err)
	}
	if got := acquired(t, b, "here", "b"); got.Fence <= lease.Fence {
		t.Errorf("the fence went from %d to %d", lease.Fence, got.Fence)
	}
}

func TestALeaseIsTakenByOne(t *testing.T) {
	a, b, _ := twoStores(t)
	for _, infrastructure := range []string{"one", "two", "three", "four"} {
		var wg sync.WaitGroup
		var got [2]bool
		for i, s := range []*Store{a, b} {
			wg.Go(func() {
				_, ok, err := s.Acquire(context.Background(), infrastructure, []string{"a", "b"}[i])
				if err != nil {
					t.Error(err)
				}
				got[i] = ok
			})
		}
		wg.Wait()
		if got[0] == got[1] {
			t.Errorf("%s: taken by both or by none: %v", infrastructure, got)
		}
	}
}

func TestALeaseThatRanOutIsTakenAndFencesWhoHeldIt(t *testing.T) {
	a, b, _ := twoStores(t)
	old := acquired(t, a, "here", "a")
	if _, ok, err := b.Acquire(t.Context(), "here", "b"); ok || err != nil {
		t.Fatalf("taken while it was held: %v, %v", ok, err)
	}
	first := newLife("first", "here", nil)
	if err := a.CommitUnder(t.Context(), old, []berth.Change{first}); err != nil {
		t.Fatal(err)
	}

	expire(t, a, "here")
	second := newLife("second", "here", nil)
	if err := a.CommitUnder(t.Context(), old, []berth.Change{second}); !errors.Is(err, berth.ErrFenced) {
		t.Errorf("stored under a lease that ran out: %v", err)
	}
	lease := acquired(t, b, "here", "b")
	for what, err := range map[string]error{
		"stored a new task":    a.CommitUnder(t.Context(), old, []berth.Change{second}),
		"changed a task":       a.CommitUnder(t.Context(), old, []berth.Change{{Life: first.Life, Events: first.Life.Cancel(t0)}}),
		"committed nothing":    a.CommitUnder(t.Context(), old, nil),
		"moved a task to it":   a.CommitUnder(t.Context(), acquired(t, a, "mine", "a"), []berth.Change{second}, old),
		"used another's fence": a.CommitUnder(t.Context(), berth.Lease{Infrastructure: "here", Holder: "a", Fence: lease.Fence}, []berth.Change{second}),
	} {
		if !errors.Is(err, berth.ErrFenced) {
			t.Errorf("whoever held it %s: %v", what, err)
		}
	}
	renewed, err := a.Heartbeat(t.Context(), berth.Server{ID: "a"}, []berth.Lease{old})
	if err != nil || len(renewed.Renewed) != 0 || !slices.Contains(renewed.Leases, lease) {
		t.Errorf("renewed: %+v, %v", renewed, err)
	}
	if err := a.Release(t.Context(), old); err != nil { // which isn't its own any more
		t.Fatal(err)
	}
	if err := b.CommitUnder(t.Context(), lease, []berth.Change{second}); err != nil {
		t.Errorf("the holder can't store: %v", err)
	}
	if got, err := b.Life(t.Context(), "first"); err != nil || got.Task.CancelledAt != nil {
		t.Errorf("a fenced change is there: %+v, %v", got, err)
	}
}

// A commit that is under way keeps its lease from being taken: whoever takes it
// sees what was committed.
func TestACommitAndATakeoverComeOneAfterTheOther(t *testing.T) {
	a, b, _ := twoStores(t)
	lease := acquired(t, a, "here", "a")
	tx, err := a.write.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed
	if _, err := tx.ExecContext(t.Context(), "SELECT fence(?, ?, ?)", lease.Infrastructure, lease.Holder, lease.Fence); err != nil {
		t.Fatal(err)
	}
	taken := make(chan bool)
	go func() {
		// It wants to be b's as if it had run out.
		_, err := b.write.ExecContext(context.Background(), "UPDATE leases SET holder = 'b', fence = fence + 1 WHERE infrastructure = 'here'")
		taken <- err == nil
	}()
	select {
	case <-taken:
		t.Fatal("taken in the middle of a commit")
	case <-time.After(100 * time.Millisecond): // a wrong answer would come by then; a right one takes as long as it takes
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if !<-taken {
		t.Error("not taken after the commit")
	}
}

// A server that was away, and nobody took its leases, goes on with them.
func TestALeaseThatNobodyTookIsRenewed(t *testing.T) {
	a, b, _ := twoStores(t)
	lease := acquired(t, a, "here", "a")
	expire(t, a, "here")
	sharing, err := a.Heartbeat(t.Context(), berth.Server{ID: "a"}, []berth.Lease{lease})
	if err != nil || !slices.Equal(sharing.Renewed, []string{"here"}) {
		t.Fatalf("%+v, %v", sharing, err)
	}
	if err := a.CommitUnder(t.Context(), lease, []berth.Change{newLife("x", "here", nil)}); err != nil {
		t.Error(err)
	}
	if _, ok, err := b.Acquire(t.Context(), "here", "b"); ok || err != nil {
		t.Errorf("taken: %v, %v", ok, err)
	}
}

// A server that is started again has its leases at once, and fences what is
// left of the process before.
func TestAServerThatComesAgainTakesItsOwnLeases(t *testing.T) {
	a, again, _ := twoStores(t)
	before := acquired(t, a, "here", "a")
	now := acquired(t, again, "here", "a")
	if now.Fence <= before.Fence {
		t.Errorf("the fence went from %d to %d", before.Fence, now.Fence)
	}
	if err := a.CommitUnder(t.Context(), before, []berth.Change{newLife("x", "here", nil)}); !errors.Is(err, berth.ErrFenced) {
		t.Errorf("the process before stores: %v", err)
	}
}

func TestLeasesOutliveARestartOfTheDatabase(t *testing.T) {
	server := pgtest.New(t)
	s := openedURL(t, server.Database(t))
	lease := acquired(t, s, "here", "a")
	server.Stop(syscall.SIGQUIT)
	if _, err := s.Heartbeat(t.Context(), berth.Server{ID: "a"}, []berth.Lease{lease}); berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("renewed in a database that is away: %v", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if sharing, err := s.Heartbeat(t.Context(), berth.Server{ID: "a"}, []berth.Lease{lease}); err != nil || len(sharing.Renewed) != 1 {
		t.Errorf("after the restart: %+v, %v", sharing, err)
	}
	if err := s.CommitUnder(t.Context(), lease, []berth.Change{newLife("x", "here", nil)}); err != nil {
		t.Error(err)
	}
}

func TestAFileHasNoLeases(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "berth.db"))
	if _, _, err := s.Acquire(t.Context(), "here", "a"); berth.CodeOf(err) != berth.CodeUnsupported || s.Shared() {
		t.Errorf("a lease in a file: %v", err)
	}
}

func TestWhoLostTheLeaseStoresNothingOfAClusterAnyMore(t *testing.T) {
	a, b, _ := twoStores(t)
	joined(t, a, "a", "here")
	joined(t, b, "b", "here")
	r := newCluster("k1", "ada", "it")
	addClusters(t, a, r)
	old := acquired(t, a, "here", "a")
	expire(t, a, "here")
	lease := acquired(t, b, "here", "b")
	r.Cluster.State = berth.ClusterStopped
	if err := a.CommitCluster(t.Context(), old, r); !errors.Is(err, berth.ErrFenced) {
		t.Errorf("who lost it: %v", err)
	}
	if got, err := b.LiveCluster(t.Context(), "ada", "it"); err != nil || got.Cluster.State != berth.ClusterStarting {
		t.Errorf("it is %s, %v", got.Cluster.State, err)
	}
	r.Cluster.State = berth.ClusterRunning
	if err := b.CommitCluster(t.Context(), lease, r); err != nil {
		t.Errorf("who has it: %v", err)
	}
}
