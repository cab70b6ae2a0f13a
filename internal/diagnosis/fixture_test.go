package diagnosis

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/berth-run/berth"
)

// fixture is a file of testdata: a pod with its events, or an answer of the
// API server, and what it comes from. It is named CAUSE or CAUSE-variant; one
// whose name begins with "fine" has nothing wrong.
type fixture struct {
	Kubernetes   string         `json:"kubernetes"` // the version that says it so
	Origin       string         `json:"origin"`     // "recorded" from a cluster, or "hand-written" after the source and what others saw
	Subject      Subject        `json:"subject"`
	Pod          *corev1.Pod    `json:"pod"`
	Events       []corev1.Event `json:"events"`
	EventsUnseen bool           `json:"eventsUnseen"`
	Request      struct{ Verb, Resource string }
	Status       *metav1.Status `json:"status"`
	Transport    string         `json:"transport"` // an error made by transportErrors

	name string
}

var testNow = time.Date(2026, 3, 1, 10, 5, 0, 0, time.UTC)

func fixtures(t testing.TB) []fixture {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	var all []fixture
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var f fixture
		if err := yaml.UnmarshalStrict(data, &f); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		f.name = strings.TrimSuffix(filepath.Base(path), ".yaml")
		if f.Kubernetes == "" || f.Origin != "recorded" && f.Origin != "hand-written" {
			t.Errorf("%s does not say what it is from", path)
		}
		all = append(all, f)
	}
	return all
}

// cause is the one that the fixture's name says, "" for none.
func (f fixture) cause() berth.Cause {
	name, _, _ := strings.Cut(f.name, "-")
	if name == "fine" {
		return ""
	}
	return berth.Cause(name)
}

func (f fixture) subject() Subject {
	s := f.Subject
	s.Infrastructure, s.Namespace, s.Server, s.Pod = "site-a", "berth", "https://cluster.example:6443", "berth-d3k1-1"
	if f.Pod == nil {
		s.Image, s.CPU, s.Memory = "docker.io/library/busybox:1.35", "2", "2Gi"
	}
	return s
}

// find runs the fixture with other events in place of its own.
func (f fixture) findWith(t testing.TB, events []corev1.Event) *Finding {
	t.Helper()
	switch {
	case f.Pod != nil:
		return Pod(f.Pod, "main", events, !f.EventsUnseen, f.subject(), testNow)
	case f.Status != nil:
		return Error(&apierrors.StatusError{ErrStatus: *f.Status}, f.Request.Verb, f.Request.Resource, f.subject(), testNow)
	case f.Transport != "":
		err := transportError(t, f.Transport)
		if err == nil {
			t.Fatal(errors.New("no error was made"))
		}
		return Error(err, f.Request.Verb, f.Request.Resource, f.subject(), testNow)
	}
	t.Fatalf("%s: neither pod, status nor transport", f.name)
	return nil
}

func (f fixture) find(t testing.TB) *Finding { t.Helper(); return f.findWith(t, f.Events) }
