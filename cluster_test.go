package berth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

const aCluster = "k01234567890123456789"

func newCluster(change func(*berth.ClusterSpec)) *berth.ClusterSpec {
	s := &berth.ClusterSpec{Engine: berth.EngineDask, Image: "dask", Workers: []berth.ClusterGroup{{Count: 2}}}
	if change != nil {
		change(s)
	}
	return s
}

func TestAClusterIsCompletedByWhatItLeavesOpen(t *testing.T) {
	s := newCluster(nil)
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	want := newCluster(func(s *berth.ClusterSpec) {
		s.Head = berth.ClusterGroup{Name: berth.HeadGroup, Count: 1}
		s.Workers[0].Name, s.DrainTimeout = berth.WorkerGroup, berth.DefaultDrainTimeout
	})
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := s.Validate(); err != nil || !s.Same(want) {
		t.Errorf("once more it is another: %+v, %v", s, err)
	}
}

func TestWhatAClusterMayBe(t *testing.T) {
	for name, change := range map[string]func(*berth.ClusterSpec){
		"no workers":               func(s *berth.ClusterSpec) { s.Workers[0].Count = 0 },
		"as many as may be":        func(s *berth.ClusterSpec) { s.Workers[0].Count = berth.MaxWorkers },
		"from none to some":        func(s *berth.ClusterSpec) { s.Workers[0] = berth.ClusterGroup{Max: 5} },
		"as many as it wants of 3": func(s *berth.ClusterSpec) { s.Workers[0] = berth.ClusterGroup{Min: 3, Max: 3} },
		"several groups": func(s *berth.ClusterSpec) {
			s.Workers = []berth.ClusterGroup{{Name: "a"}, {Name: "b", Max: 5, CPU: "500m", Memory: "1Gi", GPU: 1, Labels: map[string]string{"team": "x"}}}
		},
		"the shortest limits": func(s *berth.ClusterSpec) {
			s.IdleTimeout, s.NoClientTimeout, s.MaxLifetime = berth.MinClusterLimit, berth.MinClusterLimit, berth.MinClusterLimit
		},
	} {
		if err := newCluster(change).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatAClusterMayNotBe(t *testing.T) {
	groups := func(all ...berth.ClusterGroup) func(*berth.ClusterSpec) {
		return func(s *berth.ClusterSpec) { s.Workers = all }
	}
	type group = berth.ClusterGroup
	for name, c := range map[string]struct {
		change func(*berth.ClusterSpec)
		says   string
	}{
		"of no engine":            {func(s *berth.ClusterSpec) { s.Engine = "" }, `engine "": there is dask`},
		"of an unknown engine":    {func(s *berth.ClusterSpec) { s.Engine = "spark" }, `engine "spark": there is dask`},
		"without an image":        {func(s *berth.ClusterSpec) { s.Image = "" }, "head: "},
		"named badly":             {func(s *berth.ClusterSpec) { s.Name = "No Name" }, "No Name"},
		"named as an id":          {func(s *berth.ClusterSpec) { s.Name = aCluster }, "looks like the id of a cluster"},
		"of no group":             {groups(), "at least one group"},
		"of nameless groups":      {groups(group{}, group{Name: "b"}), `worker group ""`},
		"of a group named badly":  {groups(group{Name: "Big"}), `worker group "Big"`},
		"of a long name":          {groups(group{Name: strings.Repeat("a", 31)}), "at most 30"},
		"of a second head":        {groups(group{Name: "head"}), "worker group head: the name is taken"},
		"of a group twice":        {groups(group{Name: "a"}, group{Name: "a"}), "worker group a: the name is taken"},
		"of several heads":        {func(s *berth.ClusterSpec) { s.Head.Max = 2 }, "one head"},
		"of -1 workers":           {groups(group{Count: -1}), "-1 workers"},
		"of -1 and more":          {groups(group{Min: -1, Max: 2}), "-1 workers"},
		"of at least, and none":   {groups(group{Min: 2}), "from 2 to 0 workers"},
		"from more to fewer":      {groups(group{Min: 3, Max: 2}), "from 3 to 2 workers: the greater number comes last"},
		"of 100000 workers":       {groups(group{Count: 100000}), "100000 workers: a cluster has at most 2500"},
		"of 100000 at most":       {groups(group{Max: 100000}), "100000 workers: a cluster has at most 2500"},
		"of too many in all":      {groups(group{Name: "a", Count: 2000}, group{Name: "b", Max: 501}), "2501 workers"},
		"idle for less than none": {func(s *berth.ClusterSpec) { s.IdleTimeout = -time.Second }, "idle timeout -1s"},
		"hardly idle":             {func(s *berth.ClusterSpec) { s.IdleTimeout = time.Second }, "idle timeout 1s: use 0, for none, or 5s and more"},
		"hardly without a client": {func(s *berth.ClusterSpec) { s.NoClientTimeout = time.Second }, "no-client timeout 1s"},
		"short-lived":             {func(s *berth.ClusterSpec) { s.MaxLifetime = time.Second }, "maximal lifetime 1s"},
		"labelled as Berth does":  {func(s *berth.ClusterSpec) { s.Labels = map[string]string{"berth.run/x": "y"} }, "berth.run/x"},
		"labelled as another's":   {func(s *berth.ClusterSpec) { s.Labels = map[string]string{berth.LabelCluster: "y"} }, berth.LabelCluster},
		"of a group of another":   {groups(group{Labels: map[string]string{berth.LabelGroup: "y"}}), "workers: "},
		"of odd cpu":              {groups(group{Name: "big", CPU: "lots"}), "big: cpu"},
		"of odd memory":           {groups(group{Name: "big", Memory: "lots"}), "big: memory"},
		"of -1 gpu":               {groups(group{Name: "big", GPU: -1}), "big: gpu -1"},
		"of an odd variable":      {groups(group{Name: "big", Env: []berth.EnvVar{{Name: "A B"}}}), "big: "},
		"of a head of odd memory": {func(s *berth.ClusterSpec) { s.Head.Memory = "lots" }, "head: memory"},
	} {
		if err := newCluster(c.change).Validate(); berth.CodeOf(err) != berth.CodeInvalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestAMemberHasWhatItsClusterHasAndItsGroupSays(t *testing.T) {
	s := newCluster(func(s *berth.ClusterSpec) {
		s.Name, s.User, s.Infrastructure, s.MaxLifetime = "it", "1000", "here", time.Hour
		s.Labels, s.Env = map[string]string{"team": "x", "stage": "a"}, []berth.EnvVar{{Name: "A", Value: "1"}}
		s.Workers = []berth.ClusterGroup{{Name: "big", Image: "bigger", CPU: "2", Memory: "4Gi", GPU: 1, Labels: map[string]string{"stage": "b"}, Env: []berth.EnvVar{{Name: "A", Value: "2"}}}}
	})
	want := berth.TaskSpec{
		Name: "it-big-7", Image: "bigger", User: "1000", Infrastructure: "here", CPU: "2", Memory: "4Gi", GPU: 1, Timeout: time.Hour,
		Labels: map[string]string{"team": "x", "stage": "b", berth.LabelCluster: aCluster, berth.LabelGroup: "big"},
		Env:    []berth.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}, Cluster: &berth.ClusterMember{Cluster: aCluster, Group: "big", Number: 7},
	}
	if diff := cmp.Diff(want, s.TaskSpec(s.Workers[0], 7, aCluster)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if head := s.TaskSpec(berth.ClusterGroup{Name: berth.HeadGroup}, 0, aCluster); head.Name != "it-head" || head.Image != "dask" {
		t.Errorf("the head: %+v", head)
	}
	s.Name = strings.Repeat("n", 60) // a name for the cluster, and too long for its members
	if worker := s.TaskSpec(s.Workers[0], 7, aCluster); worker.Name != "" || worker.Validate() != nil {
		t.Errorf("of a long name: %q, %v", worker.Name, worker.Validate())
	}
}

func TestWhatIsWantedOfAClusterIsAppliedToItAlone(t *testing.T) {
	asked := newCluster(func(s *berth.ClusterSpec) {
		s.Workers = []berth.ClusterGroup{{Name: "a", Count: 2}, {Name: "b", Max: 5}, {Name: "c", Count: 3}}
	})
	now := *asked
	(&berth.ClusterWanted{Sizes: map[string]berth.GroupSize{"a": {Min: 1, Max: 4}, "b": {Count: 7}, "gone": {Count: 9}}}).Apply(&now)
	want := []berth.ClusterGroup{{Name: "a", Min: 1, Max: 4}, {Name: "b", Count: 7}, {Name: "c", Count: 3}}
	if diff := cmp.Diff(want, now.Workers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if asked.Workers[0].Count != 2 || asked.Workers[1].Max != 5 {
		t.Errorf("what was asked for has changed: %+v", asked.Workers)
	}
}

func TestVersionsThatDiffer(t *testing.T) {
	versions := func(python, dask string) map[string]string {
		return map[string]string{"python": python, "dask": dask, "distributed": dask, "numpy": "1.0"}
	}
	for name, c := range map[string]struct {
		theirs map[string]string
		want   string
	}{
		"none":                {versions("3.12.1", "2026.1.0"), ""},
		"another patch":       {versions("3.12.9", "2026.1.0"), ""},
		"another Python":      {versions("3.13.1", "2026.1.0"), "Python of mine is 3.12, of yours 3.13"},
		"another Dask":        {versions("3.12.1", "2026.1.1"), "dask of mine is 2026.1.0, of yours 2026.1.1; distributed of mine is 2026.1.0, of yours 2026.1.1"},
		"nobody knows":        {nil, ""},
		"only the Dask known": {map[string]string{"dask": "2"}, "dask of mine is 2026.1.0, of yours 2"},
		"another library":     {map[string]string{"numpy": "2.0"}, ""},
	} {
		want := c.want
		if want != "" {
			want = "versions differ, which may break what is computed: " + want
		}
		if got := berth.VersionsDiffer("mine", versions("3.12.1", "2026.1.0"), "yours", c.theirs); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestIdsOfClustersAreToldFromNames(t *testing.T) {
	for id, want := range map[string]bool{berth.NewClusterID("01234567890123456789"): true, "kate": false, "it": false, "": false} {
		if berth.IsClusterID(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}
