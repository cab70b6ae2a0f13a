//go:build e2e

package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/docker"
	"github.com/berth-run/berth/internal/engine"
)

// sink keeps the newest observation of each container.
type sink struct {
	mu   sync.Mutex
	pods map[string]berth.Observation
	list int
}

func (s *sink) Listed(pods []berth.Observation, _ time.Time) {
	s.mu.Lock()
	s.list++
	s.mu.Unlock()
	for _, pod := range pods {
		s.Observed(pod)
	}
}

func (s *sink) Observed(pod berth.Observation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[pod.Pod] = pod
}

func (s *sink) Lost(*engine.Refusal) {}

func (s *sink) of(pod string) berth.Observation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods[pod]
}

func (s *sink) listed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list > 0
}

// watched has a driver watch until the test ends.
func watched(t *testing.T, d *docker.Driver) *sink {
	t.Helper()
	s := &sink{pods: map[string]berth.Observation{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Watch(ctx, s) }()
	t.Cleanup(func() { cancel(); <-done })
	waitFor(t, "the listing", 30*time.Second, s.listed)
	return s
}

func newOrder(spec berth.TaskSpec) engine.Order {
	id := xid.New().String()
	if spec.Image == "" {
		spec.Image = busybox
	}
	return engine.Order{Instance: xid.New().String(), TaskID: id, Attempt: 1, Pod: berth.PodName(id, 1, 0), Spec: spec}
}

// made makes a container as a driver does that then is killed: it is not started.
func made(t *testing.T, order engine.Order, name string) string {
	t.Helper()
	c, err := shared.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: name, Config: &container.Config{
		Image: busybox, Cmd: order.Spec.Args,
		Labels: map[string]string{berth.LabelInstance: order.Instance, berth.LabelTask: order.TaskID, berth.LabelAttempt: "1"},
	}, HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: "json-file"}}})
	if err != nil {
		t.Fatal(err)
	}
	discardAtEnd(t, c.ID)
	return c.ID
}

func discardAtEnd(t *testing.T, id string) {
	t.Cleanup(func() {
		_, _ = shared.api.ContainerRemove(context.Background(), id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	})
}

func logOf(t *testing.T, d *docker.Driver, pod string) string {
	t.Helper()
	stream, err := d.Logs(t.Context(), pod, time.Time{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(data)) {
		_, _, content, _ := agent.CutLine([]byte(line))
		text.Write(content)
	}
	return text.String()
}

func TestWhatWasMadeAndNotStartedIsStartedOnce(t *testing.T) {
	spec := berth.TaskSpec{Args: []string{"sh", "-c", "echo ran; exit 3"}}
	began := time.Now().Add(-time.Second)
	once := func(t *testing.T, d *docker.Driver, s *sink, order engine.Order, id string) {
		t.Helper()
		waitFor(t, "it ends", 30*time.Second, func() bool { return s.of(order.Pod).Outcome != nil })
		if o := s.of(order.Pod); o.UID != id || *o.Outcome.ExitCode != 3 {
			t.Errorf("observed %+v", o)
		}
		for range 5 { // whatever looks at it later
			if _, ours, err := d.Find(t.Context(), order); err != nil || !ours {
				t.Errorf("find: ours %t, %v", ours, err)
			}
		}
		if got := logOf(t, d, order.Pod); got != "ran\n" {
			t.Errorf("the log is %q", got)
		}
		if _, started := ledger(t, shared, began, order.TaskID); started != 1 {
			t.Errorf("it was started %d times", started)
		}
	}
	t.Run("by the listing", func(t *testing.T) {
		order := newOrder(spec)
		id := made(t, order, order.Pod)
		d := shared.driver(t, shared.host, order.Instance)
		once(t, d, watched(t, d), order, id)
	})
	t.Run("by a search", func(t *testing.T) {
		order := newOrder(spec)
		d := shared.driver(t, shared.host, order.Instance)
		s := watched(t, d)
		id := made(t, order, order.Pod)
		if found, ours, err := d.Find(t.Context(), order); err != nil || !ours || found != id {
			t.Fatalf("found %s, ours %t, %v", found, ours, err)
		}
		once(t, d, s, order, id)
	})
	t.Run("by many at once", func(t *testing.T) {
		order := newOrder(spec)
		id := made(t, order, order.Pod)
		d := shared.driver(t, shared.host, order.Instance)
		s := watched(t, d)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { _, _, _ = d.Find(t.Context(), order) })
		}
		all.Wait()
		once(t, d, s, order, id)
	})
	t.Run("not one that is not complete", func(t *testing.T) {
		order := newOrder(spec)
		made(t, order, order.Pod+".making-x")
		d := shared.driver(t, shared.host, order.Instance)
		s := watched(t, d)
		if o := s.of(order.Pod + ".making-x"); o.UID != "" {
			t.Errorf("it is told of: %+v", o)
		}
		if _, _, err := d.Find(t.Context(), order); err == nil {
			t.Error("it was found")
		}
		if _, started := ledger(t, shared, began, order.TaskID); started != 0 {
			t.Errorf("it was started %d times", started)
		}
	})
}

// script is an agent that is a script: what a driver gives an agent can be
// looked at by it.
func script(order *engine.Order, text string, secrets ...engine.SecretInput) {
	order.Agent = &engine.Agent{
		Order:  agent.Order{Version: agent.Version, Task: order.TaskID, Attempt: 1, Pod: order.Pod, Nonce: "nonce", Call: &agent.Call{Function: "f", Arguments: map[string]json.RawMessage{}}},
		Inject: true, Binary: func(string) ([]byte, error) { return []byte("#!/bin/sh\n" + text), nil }, Secrets: secrets,
	}
}

func TestWhatTheAgentIsGiven(t *testing.T) {
	named := "berth-test/named:1"
	content, err := busyboxTree(map[string]string{"etc/passwd": "root:x:0:0::/:/bin/sh\nrunner:x:1500:1600::/:/bin/sh\n", "etc/group": "root:x:0:\nstaff:x:1700:\n"})
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.importImage(t.Context(), named, content, "USER runner:staff"); err != nil {
		t.Fatal(err)
	}
	report, _, err := agent.EncodeMessage(&agent.Completion{ExitCode: 0, Result: json.RawMessage(`{"n":1}`), EndedAt: time.Now()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, image, user, who string }{
		{"the image's user", busybox, "", "0 0"},
		{"a user of the task's", busybox, "1234:5678", "1234 5678"},
		{"a user that the image names", named, "", "1500 1700"},
	} {
		t.Run(test.name, func(t *testing.T) {
			order := newOrder(berth.TaskSpec{Image: test.image, User: test.user, Env: []berth.EnvVar{{Name: "MINE", Value: "$(x)"}}, Args: []string{"never"}})
			script(&order, `echo "$#|$MINE|$(id -u) $(id -g)"
stat -c '%a %u %g' /.berth/secrets/0
cat /.berth/secrets/0
echo "$BERTH_ORDER_0"
cat > /.berth/report <<'END'
`+string(report)+`
END
`, engine.SecretInput{Input: "password", Value: "s3cret\n"})
			d := shared.driver(t, shared.host, order.Instance)
			s := watched(t, d)
			id, err := d.Create(t.Context(), order)
			if err != nil {
				t.Fatal(err)
			}
			discardAtEnd(t, id)
			waitFor(t, "it ends", 30*time.Second, func() bool { return s.of(order.Pod).Outcome != nil })
			o := s.of(order.Pod).Outcome
			if *o.ExitCode != 0 || o.Diagnosis != nil || string(o.Result) != `{"n":1}` {
				t.Errorf("outcome %+v %+v", o, o.Diagnosis)
			}
			out := logOf(t, d, order.Pod)
			if want := fmt.Sprintf("0|$(x)|%s\n400 %s\ns3cret\n", test.who, test.who); !strings.HasPrefix(out, want) {
				t.Errorf("output %q, want %q", out, want)
			}
			for _, want := range []string{`"password":"file:/.berth/secrets/0"`, `"path":"/.berth/report"`, `"limit":0`} {
				if !strings.Contains(out, want) {
					t.Errorf("the order lacks %s: %s", want, out)
				}
			}
			if c, err := shared.api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{}); err != nil || bytes.Contains(c.Raw, []byte("s3cret")) {
				t.Errorf("the container's description tells the secret, or %v", err)
			}
		})
	}
}

func TestAnAgentThatLeftNoReport(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		code   int
		cause  berth.Cause
	}{
		"failed":               {"exit 5", 5, berth.CauseExitedNonZero},
		"ended":                {"exit 0", 0, berth.CauseResultMissing},
		"wrote something else": {"echo nonsense > /.berth/report; exit 6", 6, berth.CauseExitedNonZero},
	} {
		t.Run(name, func(t *testing.T) {
			order := newOrder(berth.TaskSpec{})
			script(&order, test.script)
			d := shared.driver(t, shared.host, order.Instance)
			s := watched(t, d)
			id, err := d.Create(t.Context(), order)
			if err != nil {
				t.Fatal(err)
			}
			discardAtEnd(t, id)
			waitFor(t, "it ends", 30*time.Second, func() bool { return s.of(order.Pod).Outcome != nil })
			if o := s.of(order.Pod).Outcome; *o.ExitCode != test.code || o.Diagnosis == nil || o.Diagnosis.Cause != test.cause {
				t.Errorf("outcome %+v %+v", o, o.Diagnosis)
			}
		})
	}
}

func TestWhatNoEngineCanDoIsRefused(t *testing.T) {
	tests := map[string]struct {
		spec  berth.TaskSpec
		refs  []engine.SecretInput
		cause berth.Cause
		says  string
	}{
		"a Secret of Kubernetes": {berth.TaskSpec{}, []engine.SecretInput{{Input: "password", Ref: &engine.SecretRef{Name: "login", Key: "pw"}}}, berth.CauseConfigNotFound, "kube:login/pw"},
		"a limit of local disk":  {berth.TaskSpec{EphemeralStorage: "1Gi"}, nil, berth.CauseInsufficientEphemeralStorage, "local disk"},
		"hardly any memory":      {berth.TaskSpec{Memory: "1Mi"}, nil, berth.CauseOOMKilled, "1Mi"},
		"an unknown image ID":    {berth.TaskSpec{Image: "sha256:" + strings.Repeat("0", 64)}, nil, berth.CauseImageNeverPull, "may not be fetched"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			order := newOrder(test.spec)
			if test.refs != nil {
				script(&order, "exit 0", test.refs...)
			}
			_, err := shared.driver(t, shared.host, order.Instance).Create(t.Context(), order)
			refusal, ok := err.(*engine.Refusal) //nolint:errorlint // as the engine gets it
			if !ok || refusal.Kind != engine.RefusedPermanent || refusal.Diagnosis.Cause != test.cause || !strings.Contains(refusal.Diagnosis.Summary, test.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestProgramsThatTheKernelRefuses(t *testing.T) {
	elf := "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\xb7\x00" + strings.Repeat("\x00", 44)
	content, err := busyboxTree(map[string]string{"bin/foreign": elf})
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.importImage(t.Context(), "berth-test/foreign:1", content, "USER nobody"); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		spec  berth.TaskSpec
		cause berth.Cause
		code  int
	}{
		"for another processor":      {berth.TaskSpec{Image: "berth-test/foreign:1", User: "0", Args: []string{"foreign"}}, berth.CauseArchitectureMismatch, 126},
		"as a user that isn't there": {berth.TaskSpec{Image: "berth-test/foreign:1", Args: []string{"true"}}, berth.CauseConfigNotFound, -1},
	} {
		t.Run(name, func(t *testing.T) {
			order := newOrder(test.spec)
			d := shared.driver(t, shared.host, order.Instance)
			s := watched(t, d)
			id, err := d.Create(t.Context(), order)
			if err != nil {
				t.Fatal(err)
			}
			discardAtEnd(t, id)
			waitFor(t, "it ends", 30*time.Second, func() bool { return s.of(order.Pod).Outcome != nil })
			o := s.of(order.Pod).Outcome
			if o.Diagnosis == nil || o.Diagnosis.Cause != test.cause || test.code >= 0 && (o.ExitCode == nil || *o.ExitCode != test.code) {
				t.Errorf("outcome %+v %+v", o, o.Diagnosis)
			}
		})
	}
}

func TestAnImageByItsID(t *testing.T) {
	i, err := shared.api.ImageInspect(t.Context(), busybox)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, shared)
	if got := s.must("run", i.ID, "echo", "by its ID"); got != "by its ID\n" {
		t.Errorf("output %q", got)
	}
	if task := s.tasks()[0]; task.Image != i.ID {
		t.Errorf("image %s", task.Image)
	}
}
