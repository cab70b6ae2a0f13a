package store

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth"
)

func newCluster(id, owner, name string) *berth.ClusterRecord {
	return &berth.ClusterRecord{Key: "key-" + id, Caller: berth.Caller{Name: owner, Role: berth.RoleWrite}, Cluster: berth.Cluster{
		ID: id, Name: name, Engine: berth.EngineDask, State: berth.ClusterStarting, Infrastructure: "here", Image: "dask", Owner: owner, CreatedAt: t0,
		Head: berth.ClusterHead{Versions: map[string]string{}}, Groups: []berth.GroupStatus{}, Warnings: []string{},
		Spec: berth.ClusterSpec{Name: name, Engine: berth.EngineDask, Image: "dask", Workers: []berth.ClusterGroup{{Name: "a", Count: 2}, {Name: "b", Count: 1}}, IdleTimeout: time.Hour},
	}}
}

func addClusters(t *testing.T, s *Store, all ...*berth.ClusterRecord) {
	t.Helper()
	for _, r := range all {
		if err := s.AddCluster(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func endCluster(t *testing.T, s *Store, r *berth.ClusterRecord) {
	t.Helper()
	r.Cluster.State, r.Cluster.FinishedAt = berth.ClusterStopped, &t0
	if err := s.CommitCluster(t.Context(), berth.Lease{}, r); err != nil {
		t.Fatal(err)
	}
}

func TestAClusterIsReadAsItWasStored(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		want := newCluster("k1", "ada", "it")
		addClusters(t, s, want)
		reason, clients, state := "it waits", 3, berth.StateRunning
		want.Cluster.State, want.Cluster.Reason, want.Cluster.Clients, want.Cluster.Head.State = berth.ClusterRunning, &reason, &clients, &state
		want.Cluster.Groups = []berth.GroupStatus{{Name: "a", Wanted: 2, Ready: 1, Lost: map[string]int{"OOMKilled": 3}, Versions: map[string]string{"python": "3"}}}
		want.Keeping = berth.ClusterKeeping{
			Next: map[string]int{"a": 7}, Head: "t1", Members: map[string]berth.Membership{"t2": {Group: "a", Ready: true, Draining: &t0}}, Targets: map[string]int{"b": 1}, Mark: "m", NoClient: &t0,
			HeadSeen: &t0, Failing: map[string]berth.Failing{"b": {Count: 2, At: t0, Until: t0}}, Failed: true,
		}
		if err := s.CommitCluster(t.Context(), berth.Lease{}, want); err != nil {
			t.Fatal(err)
		}
		s = open()
		for name, read := range map[string]func() (berth.ClusterRecord, error){
			"by id":   func() (berth.ClusterRecord, error) { return s.Cluster(t.Context(), "k1") },
			"by key":  func() (berth.ClusterRecord, error) { return s.ClusterByKey(t.Context(), "key-k1") },
			"by name": func() (berth.ClusterRecord, error) { return s.ClusterNamed(t.Context(), "it", want.Caller) },
			"live":    func() (berth.ClusterRecord, error) { return s.LiveCluster(t.Context(), "ada", "it") },
		} {
			got, err := read()
			if diff := cmp.Diff(*want, got); err != nil || diff != "" {
				t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
			}
		}
		for name, read := range map[string]func() (berth.ClusterRecord, error){
			"by id":     func() (berth.ClusterRecord, error) { return s.Cluster(t.Context(), "k2") },
			"by key":    func() (berth.ClusterRecord, error) { return s.ClusterByKey(t.Context(), "k1") },
			"another's": func() (berth.ClusterRecord, error) { return s.LiveCluster(t.Context(), "bob", "it") },
			"to another": func() (berth.ClusterRecord, error) {
				return s.ClusterNamed(t.Context(), "it", berth.Caller{Name: "bob"})
			},
		} {
			if _, err := read(); berth.CodeOf(err) != berth.CodeNotFound {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestANameIsOneClustersOfItsOwnerUntilThatEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		first := newCluster("k1", "ada", "it")
		addClusters(t, s, first, newCluster("k2", "bob", "it"), newCluster("k3", "ada", "other"))
		if err := s.AddCluster(t.Context(), newCluster("k4", "ada", "it")); berth.CodeOf(err) != berth.CodeConflict {
			t.Errorf("a second one: %v", err)
		}
		endCluster(t, s, first)
		addClusters(t, s, newCluster("k5", "ada", "it"))
		if got, err := s.LiveCluster(t.Context(), "ada", "it"); err != nil || got.Cluster.ID != "k5" {
			t.Errorf("it is %s, %v", got.Cluster.ID, err)
		}
		again := newCluster("k6", "ada", "another")
		again.Key = first.Key
		if err := s.AddCluster(t.Context(), again); berth.CodeOf(err) != berth.CodeConflict {
			t.Errorf("the same key again: %v", err)
		}
	})
}

func TestANameMeansWhatGoesOnThenOnesOwnThenTheNewest(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		ada, root := berth.Caller{Name: "ada", Role: berth.RoleWrite}, berth.Caller{Name: "root", Role: berth.RoleAdmin}
		means := func(who string, caller berth.Caller, want string) {
			t.Helper()
			if got, err := s.ClusterNamed(t.Context(), "it", caller); err != nil || got.Cluster.ID != want {
				t.Errorf("%s: %s, %v, want %s", who, got.Cluster.ID, err, want)
			}
		}
		k1, k2, k3 := newCluster("k1", "ada", "it"), newCluster("k2", "bob", "it"), newCluster("k3", "root", "it")
		addClusters(t, s, k1, k2)
		means("an owner", ada, "k1")
		means("who sees all", root, "k2")
		addClusters(t, s, k3, newCluster("k4", "eve", "it"))
		means("who sees all, and has one", root, "k3")
		endCluster(t, s, k3)
		means("whose own has ended", root, "k4")
		endCluster(t, s, k1)
		means("who has none other", ada, "k1")
		addClusters(t, s, newCluster("k0", "ada", "it"))
		means("who has another", ada, "k0")
	})
}

func TestClustersAreListedToThoseWhoMaySeeThem(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		over, there := newCluster("k1", "ada", "over"), newCluster("k4", "ada", "there")
		there.Cluster.Infrastructure = "there"
		addClusters(t, s, over, newCluster("k2", "ada", "it"), newCluster("k3", "bob", "it"), there)
		endCluster(t, s, over)
		ada, root := berth.Caller{Name: "ada", Role: berth.RoleWrite}, berth.Caller{Name: "root", Role: berth.RoleAdmin}
		for name, c := range map[string]struct {
			query  berth.ClusterQuery
			caller berth.Caller
			want   []string
			next   string
		}{
			"an owner":             {berth.ClusterQuery{}, ada, []string{"k4", "k2"}, ""},
			"all of an owner":      {berth.ClusterQuery{All: true}, ada, []string{"k4", "k2", "k1"}, ""},
			"an admin":             {berth.ClusterQuery{}, root, []string{"k4", "k3", "k2"}, ""},
			"of an infrastructure": {berth.ClusterQuery{Infrastructure: "there"}, root, []string{"k4"}, ""},
			"restricted":           {berth.ClusterQuery{}, berth.Caller{Name: "ada", Role: berth.RoleWrite, Infrastructures: []string{"here"}}, []string{"k2"}, ""},
			"a stranger":           {berth.ClusterQuery{All: true}, berth.Caller{Name: "eve", Role: berth.RoleWrite}, nil, ""},
			"a page":               {berth.ClusterQuery{Limit: 2}, root, []string{"k4", "k3"}, "k3"},
			"the next page":        {berth.ClusterQuery{Limit: 2, After: "k3"}, root, []string{"k2"}, ""},
		} {
			page, err := s.Clusters(t.Context(), c.query, c.caller)
			var got []string
			for _, cluster := range page.Clusters {
				got = append(got, cluster.ID)
			}
			if err != nil || !slices.Equal(got, c.want) || page.Next != c.next || page.Clusters == nil {
				t.Errorf("%s: %v, next %q, %v, want %v", name, got, page.Next, err, c.want)
			}
		}
	})
}

func TestWhatPeopleChangeOfAClusterAtOnceIsAllKept(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		r := newCluster("k1", "ada", "it")
		addClusters(t, s, r)
		var all errgroup.Group
		for i := 1; i <= 10; i++ {
			all.Go(func() error {
				return s.ScaleCluster(t.Context(), "k1", "group-"+strconv.Itoa(i), berth.GroupSize{Count: i, At: t0})
			})
		}
		all.Go(func() error { return s.ScaleCluster(t.Context(), "k1", "a", berth.GroupSize{Min: 1, Max: 9, At: t0}) })
		all.Go(func() error { return s.DeleteCluster(t.Context(), "k1", t0) })
		all.Go(func() error { return s.CommitCluster(t.Context(), berth.Lease{}, r) })
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteCluster(t.Context(), "k1", t0.Add(time.Hour)); err != nil { // it was already
			t.Fatal(err)
		}
		got, err := s.Cluster(t.Context(), "k1")
		if err != nil || len(got.Wanted.Sizes) != 11 || got.Wanted.Sizes["group-7"].Count != 7 || got.Wanted.DeletedAt == nil || !got.Wanted.DeletedAt.Equal(t0) {
			t.Errorf("%+v, %v", got.Wanted, err)
		}
		if want := []berth.ClusterGroup{{Name: "a", Min: 1, Max: 9}, {Name: "b", Count: 1}}; !cmp.Equal(got.Cluster.Spec.Workers, want) {
			t.Errorf("its workers: %+v", got.Cluster.Spec.Workers)
		}
		if err := s.ScaleCluster(t.Context(), "k2", "a", berth.GroupSize{}); err == nil {
			t.Error("what isn't there was scaled")
		}
	})
}

func TestTheTasksOfAClusterAreThoseOfWhichSomethingMayBeLeft(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		member := func(id, cluster string) berth.Change {
			return newLife(id, "here", func(spec *berth.TaskSpec) {
				spec.Labels = map[string]string{berth.LabelCluster: cluster}
				spec.Cluster = &berth.ClusterMember{Cluster: cluster, Group: "a", Number: 1}
			})
		}
		queued, over, ending := member("a", "k1"), member("b", "k1"), member("c", "k1")
		elsewhere := newLife("e", "there", func(spec *berth.TaskSpec) { spec.Labels = map[string]string{berth.LabelCluster: "k1"} })
		if err := s.Commit(t.Context(), []berth.Change{queued, over, ending, member("d", "k2"), elsewhere, newLife("f", "here", nil)}); err != nil {
			t.Fatal(err)
		}
		over.Life.Cancel(t0)
		ending.Life.Admit(t0)
		ending.Life.Seen("uid", false, t0)
		ending.Life.Lose(nil, t0) // and its pod may be there
		if err := s.Commit(t.Context(), []berth.Change{{Life: over.Life}, {Life: ending.Life}}); err != nil {
			t.Fatal(err)
		}
		if !over.Life.Settled() || ending.Life.Settled() || !ending.Life.Task.State.Terminal() {
			t.Fatalf("they are %+v and %+v", over.Life, ending.Life)
		}
		tasks, err := s.ClusterTasks(t.Context(), "k1", "here")
		got := map[string]berth.TaskState{}
		for _, task := range tasks {
			got[task.ID] = task.State
		}
		if want := map[string]berth.TaskState{"a": berth.StateQueued, "c": ending.Life.Task.State}; err != nil || !cmp.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	})
}

func TestAnInfrastructureIsLookedAfterWhileItHasClusters(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *Store) {
		s := open()
		r, other := newCluster("k1", "ada", "it"), newCluster("k2", "ada", "other")
		other.Cluster.Infrastructure = "there"
		addClusters(t, s, r, other)
		looked := func(want ...string) {
			t.Helper()
			names, err := s.LiveInfrastructures(t.Context())
			slices.Sort(names)
			if err != nil || !slices.Equal(names, want) {
				t.Errorf("%v, %v, want %v", names, err, want)
			}
		}
		looked("here", "there")
		endCluster(t, s, other)
		looked("here")
		if of, err := s.ClustersOf(t.Context(), "here"); err != nil || len(of) != 1 || of[0].Cluster.ID != "k1" {
			t.Errorf("of here: %+v, %v", of, err)
		}
		if of, err := s.ClustersOf(t.Context(), "there"); err != nil || len(of) != 0 {
			t.Errorf("of there: %+v, %v", of, err)
		}
	})
}
