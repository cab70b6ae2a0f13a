package permissions

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNothingIsGrantedTwiceOrByWildcard(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range All {
		if p.Verb == "*" || p.Resource == "*" || p.Group == "*" || p.Verb == "" || p.Resource == "" {
			t.Errorf("%+v is not exact", p)
		}
		if key := string(p.Profile) + " " + p.String(); seen[key] {
			t.Errorf("%s is there twice", key)
		} else {
			seen[key] = true
		}
		if p.For == "" {
			t.Errorf("%s: nobody knows what it is for", p)
		}
	}
}

func TestParseProfiles(t *testing.T) {
	for _, tt := range []struct {
		names []string
		want  []Profile
	}{
		{nil, []Profile{Tasks}},
		{[]string{"metrics"}, []Profile{Tasks, Metrics}},
		{[]string{"metrics,clusters", "tasks"}, []Profile{Tasks, Clusters, Metrics}},
	} {
		got, err := ParseProfiles(tt.names)
		if err != nil {
			t.Errorf("ParseProfiles(%q): %v", tt.names, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("ParseProfiles(%q): %s", tt.names, diff)
		}
	}
	if _, err := ParseProfiles([]string{"task"}); err == nil {
		t.Error("an unknown profile was accepted")
	}
}

func TestFind(t *testing.T) {
	p, ok := Find("get", "", "pods", "log")
	if !ok || p.Profile != Tasks || p.Object() != "pods/log" {
		t.Errorf("Find(get pods/log) = %v, %v", p, ok)
	}
	p, ok = Find("list", "metrics.k8s.io", "pods", "")
	if !ok || p.Profile != Metrics || p.Object() != "pods.metrics.k8s.io" {
		t.Errorf("Find(list pods.metrics.k8s.io) = %v, %v", p, ok)
	}
	if _, ok := Find("patch", "", "pods", ""); ok {
		t.Error("Berth patches no pods")
	}
}
