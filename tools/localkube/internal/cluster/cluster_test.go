package cluster

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestACommandIsContentWithMoreThanItAskedFor(t *testing.T) {
	had := Wanted{DNS: true, MaxPods: 110}
	for name, test := range map[string]struct {
		wanted Wanted
		met    bool
	}{
		"nothing special":      {Wanted{}, true},
		"what it has":          {Wanted{DNS: true}, true},
		"a part that it lacks": {Wanted{Metrics: true}, false},
		"the same size":        {Wanted{MaxPods: 110}, true},
		"another size":         {Wanted{MaxPods: 500}, false},
		"no node":              {Wanted{ControlPlaneOnly: true}, false},
		"simulated nodes":      {Wanted{ControlPlaneOnly: true, KwokNodes: 3}, false},
	} {
		if got := test.wanted.metBy(had); got != test.met {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestNamesThatNodesAndFoldersCanHave(t *testing.T) {
	for _, name := range []string{"default", "a", "e2e-1", strings.Repeat("a", 32)} {
		if _, err := New("/home", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "A", "-a", "a-", "a.b", "../a", "a b", strings.Repeat("a", 33)} {
		if _, err := New("/home", name); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// A Unix socket's path has at most 107 bytes, wherever the state lies.
func TestSocketsAreShortForAnyHome(t *testing.T) {
	c := example(t, "/"+strings.Repeat("long/", 100), strings.Repeat("n", 32))
	for _, path := range []string{
		c.socket("containerd-ttrpc"),
		filepath.Join(c.kubeletFolder(), "plugins_registry", strings.Repeat("x", 40)+".sock"),
	} {
		if len(path) > 107 {
			t.Errorf("%d bytes: %s", len(path), path)
		}
	}
}

func TestClustersOfTwoCheckoutsShareNothing(t *testing.T) {
	a, b := example(t, "/one", "default"), example(t, "/two", "default")
	if a.run == b.run || a.group() == b.group() {
		t.Errorf("%s and %s, %s and %s", a.run, b.run, a.group().Name, b.group().Name)
	}
}

// What components get of the cluster's own, without which two of them would meet.
func TestConfigurationsNameTheClustersOwn(t *testing.T) {
	c := example(t, "/a home", "one")
	for name, test := range map[string]struct {
		content string
		wanted  []string
	}{
		"containerd": {c.containerdConfig(), []string{
			`root = "/a home/one/containerd"`, `state = "` + c.run + `/containerd"`, `config_path = "/a home/one/certs.d"`,
			"netns_mounts_under_state_dir = true", `Root = "` + c.run + `/runc"`, "restrict_oom_score_adj = true",
		}},
		"kubelet": {c.kubeletConfig(250, true), []string{
			"cgroupRoot: /" + c.group().Name, `podLogsDir: "/a home/one/pod-logs"`, "maxPods: 250", "clusterDNS: [10.165.128.53]",
			`containerRuntimeEndpoint: "unix://` + c.run + `/containerd.sock"`,
		}},
		"CNI":       {c.cniConfig(), []string{`"name": "` + c.group().Name + `"`, `"subnet": "10.165.0.0/20"`, `"dataDir": "/a home/one/cni/addresses"`}},
		"scheduler": {c.schedulerConfig(), []string{`"/a home/one/pki/scheduler.kubeconfig"`, "qps: 2000"}},
		"DNS":       {c.corefile(), []string{"bind 10.165.128.53", `kubeconfig "/a home/one/pki/admin.kubeconfig"`}},
	} {
		for _, wanted := range test.wanted {
			if !strings.Contains(test.content, wanted) {
				t.Errorf("%s has no %s:\n%s", name, wanted, test.content)
			}
		}
	}
	if without := c.kubeletConfig(110, false); strings.Contains(without, "clusterDNS") {
		t.Errorf("pods are sent to a DNS that isn't there:\n%s", without)
	}
}

func example(t *testing.T, home, name string) *Cluster {
	t.Helper()
	c, err := New(home, name)
	if err != nil {
		t.Fatal(err)
	}
	c.plan.Index = 5
	return c
}
