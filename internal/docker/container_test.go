package docker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/engine"
)

func plainOrder(spec berth.TaskSpec) engine.Order {
	return engine.Order{Instance: "i1", TaskID: "t1", Attempt: 2, Pod: "berth-t1-2", Spec: spec}
}

// The login of an infrastructure's registry is sent to no other.
func TestALoginGoesToItsRegistryAlone(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	order := plainOrder(berth.TaskSpec{})
	order.Agent = &engine.Agent{Registry: &engine.RegistryLogin{Host: "berth.example:7070", Username: "pull-here", Password: "right"}}
	for ref, sent := range map[string]bool{"berth.example:7070/words:1": true, "berth.example/words:1": false, "busybox:1.35": false, "other.example:7070/words:1": false} {
		if auth := pullAuth(ref, order); (auth != "") != sent {
			t.Errorf("%s: %q", ref, auth)
		}
	}
	order.Agent.Registry.Host = "docker.io"
	if pullAuth("busybox:1.35", order) == "" {
		t.Error("docker.io, by its short name")
	}
}

func TestAContainerIsAsUnprivilegedAsTheWorkAllows(t *testing.T) {
	c, h, err := renderContainer(plainOrder(berth.TaskSpec{
		Name: "first", Image: "busybox:1", Args: []string{"echo", "$(A)"}, User: "5:6", Env: []berth.EnvVar{{Name: "A", Value: "$$"}},
		CPU: "500m", Memory: "64Mi", GPU: 2, EphemeralStorage: "1Gi", Timeout: 90 * time.Second,
		Labels: map[string]string{"team": "text", berth.LabelTask: "forged"},
	}), berth.InfrastructureConfig{Pod: berth.PodConfig{Labels: map[string]string{"site": "a", "team": "other"}}}, "busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"site": "a", "team": "text", berth.LabelManagedBy: "berth", berth.LabelInstance: "i1", berth.LabelTask: "t1", berth.LabelAttempt: "2", berth.LabelName: "first",
		labelTimeout: "1m30s",
	}
	if diff := cmp.Diff(want, c.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if timeLimit(c.Labels) != 90*time.Second {
		t.Errorf("time limit %s", timeLimit(c.Labels))
	}
	if c.Entrypoint != nil || !slices.Equal(c.Cmd, []string{"echo", "$(A)"}) || !slices.Equal(c.Env, []string{"A=$$"}) || c.User != "5:6" || c.Hostname != "berth-t1-2" || c.Tty || c.OpenStdin {
		t.Errorf("config %+v", c)
	}
	if !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Equal(h.SecurityOpt, []string{"no-new-privileges"}) || h.Privileged || h.AutoRemove || h.RestartPolicy.Name != container.RestartPolicyDisabled {
		t.Errorf("host config %+v", h)
	}
	if h.NanoCPUs != 5e8 || h.Memory != 64<<20 || h.MemorySwap != 64<<20 || h.DeviceRequests[0].Count != 2 || h.StorageOpt["size"] != "1073741824" {
		t.Errorf("resources %+v, storage %v", h.Resources, h.StorageOpt)
	}
	if _, h, _ := renderContainer(plainOrder(berth.TaskSpec{CPU: "1m"}), berth.InfrastructureConfig{}, "x"); h.NanoCPUs != 1e7 || h.Memory != 0 {
		t.Errorf("the least: %+v", h.Resources)
	}
}

func TestTheAgentTakesTheProgramsPlace(t *testing.T) {
	order := plainOrder(berth.TaskSpec{Entrypoint: []string{"never"}, Args: []string{"this"}, Env: []berth.EnvVar{{Name: "A", Value: "b"}}})
	order.Agent = &engine.Agent{
		Order:   agent.Order{Version: agent.Version, Task: "t1", Attempt: 2, Nonce: "n", Call: &agent.Call{Function: "f"}},
		Secrets: []engine.SecretInput{{Input: "password", Value: "s3cret"}},
	}
	c, _, err := renderContainer(order, berth.InfrastructureConfig{}, "x")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Entrypoint, []string{agent.Path}) || c.Cmd != nil {
		t.Errorf("it runs %v %v", c.Entrypoint, c.Cmd)
	}
	if !hasAgent(&container.InspectResponse{Config: c}) {
		t.Error("it is not seen to have an agent")
	}
	o, rest, err := agent.ReadOrder(c.Env)
	if err != nil || !slices.Equal(rest, []string{"A=b"}) {
		t.Fatalf("the rest of the environment is %v, %v", rest, err)
	}
	if o.Message != (agent.Message{Path: "/.berth/report"}) || o.Call.Secrets["password"] != "file:/.berth/secrets/0" {
		t.Errorf("order %+v %+v", o, o.Call)
	}
	if order.Agent.Order.Call.Secrets != nil {
		t.Error("the order itself was changed")
	}
	if strings.Contains(strings.Join(c.Env, " "), "s3cret") {
		t.Error("the secret is in the environment")
	}
}

func TestBytesAreWrittenAsPeopleDo(t *testing.T) {
	for bytes, want := range map[int64]berth.Quantity{1000: "1000", 1 << 10: "1Ki", 512 << 20: "512Mi", 2 << 30: "2Gi", 1<<20 + 1: "1048577", 3 << 40: "3Ti", 5 << 50: "5120Ti"} {
		if got := quantity(bytes); got != want {
			t.Errorf("%d is written %q, want %q", bytes, got, want)
		}
	}
}

func TestTimesThatNeverWere(t *testing.T) {
	if !parseTime("0001-01-01T00:00:00Z").IsZero() || !parseTime("").IsZero() || parseTime("2026-01-01T00:00:00.5Z").IsZero() {
		t.Error("misread")
	}
}

func TestNamesOfListedContainers(t *testing.T) {
	for _, test := range []struct {
		names    []string
		name     string
		complete bool
	}{
		{[]string{"/berth-x-1"}, "berth-x-1", true},
		{[]string{"/other/alias", "/berth-x-1"}, "berth-x-1", true},
		{[]string{"/berth-x-1.making-abc"}, "berth-x-1.making-abc", false},
	} {
		if name, complete := ownName(test.names); name != test.name || complete != test.complete {
			t.Errorf("%v is %q, complete %t", test.names, name, complete)
		}
	}
}

func TestPullPolicies(t *testing.T) {
	for _, test := range []struct {
		image string
		pull  berth.PullPolicy
		want  berth.PullPolicy
	}{
		{"busybox:1", "", berth.PullMissing}, {"busybox", "", berth.PullAlways}, {"busybox:latest", "", berth.PullAlways},
		{"busybox@sha256:" + strings.Repeat("0", 64), "", berth.PullMissing}, {"busybox", berth.PullNever, berth.PullNever}, {"busybox:1", berth.PullAlways, berth.PullAlways},
	} {
		if got := pullPolicy(&berth.TaskSpec{Image: test.image, Pull: test.pull}); got != test.want {
			t.Errorf("%s with %q: %s, want %s", test.image, test.pull, got, test.want)
		}
	}
}

func TestLoginsAreDockersOwn(t *testing.T) {
	dir := t.TempDir()
	login := base64.StdEncoding.EncodeToString([]byte("me:s3cret"))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"registry.example:5000":{"auth":"`+login+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	data, err := base64.URLEncoding.DecodeString(registryAuth("registry.example:5000/tool:1"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Username, Password, ServerAddress string }
	if err := json.Unmarshal(data, &got); err != nil || got.Username != "me" || got.Password != "s3cret" {
		t.Errorf("%s, %v", data, err)
	}
	if got := registryAuth("other.example/tool:1"); got != "" {
		t.Errorf("a login for another registry: %s", got)
	}
}

func TestAnswersAreToldFromTheWantOfOne(t *testing.T) {
	for text, want := range map[string]bool{
		"Error response from daemon: No such container: x":                        true,
		"Cannot connect to the Docker daemon at unix:///x. Is it running?":        false,
		"error during connect: Get \"http://api.moby.localhost/v1.41/info\": EOF": false,
	} {
		if got := answer(errors.New(text)); got.Answered != want {
			t.Errorf("%q: answered %t", text, got.Answered)
		}
	}
}

func TestCertificatesHaveToFit(t *testing.T) {
	for _, test := range []struct {
		name string
		tls  berth.TLS
	}{
		{"no file", berth.TLS{CAFile: filepath.Join(t.TempDir(), "none.pem")}}, {"no certificate", berth.TLS{CA: "nonsense"}}, {"no pair", berth.TLS{Cert: "nonsense", Key: "s3cret"}},
	} {
		_, err := NewClient(berth.InfrastructureConfig{Name: "here", Address: "tcp://build.example:2376", TLS: &test.tls})
		if berth.CodeOf(err) != berth.CodeInvalid || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
