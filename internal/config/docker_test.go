package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

func TestDockerEntries(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "infra.yml")
	file, err := Parse(path, []byte(`infrastructures:
  socket:
    kind: docker
  machine:
    kind: docker
    address: tcp://build.example:2376
    tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}
    registry: registry.example:5000
    callback_to: control.example:50052
    limits: {max_pods: 20}
    defaults: {cpu: 500m, memory: 512Mi}
    pod: {labels: {team: text}}
    grace: {pull_grace: 5s}
  open:
    kind: docker
    address: tcp://127.0.0.1:2375
    insecure_skip_tls_verify: true
`), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	grace := berth.DefaultGrace
	grace.Pull = 5e9
	want := []berth.InfrastructureConfig{
		{Name: "socket", Kind: berth.KindDocker, Address: "unix:///var/run/docker.sock", Limits: berth.DefaultLimits, Grace: berth.DefaultGrace},
		{
			Name: "machine", Kind: berth.KindDocker, Address: "tcp://build.example:2376", CallbackTo: "https://control.example:50052", Registry: "registry.example:5000",
			TLS:      &berth.TLS{CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")},
			Limits:   berth.Limits{MaxPods: 20},
			Defaults: berth.Defaults{CPU: "500m", Memory: "512Mi"},
			Pod:      berth.PodConfig{Labels: map[string]string{"team": "text"}},
			Grace:    grace,
		},
		{Name: "open", Kind: berth.KindDocker, Address: "tcp://127.0.0.1:2375", InsecureSkipTLSVerify: true, Limits: berth.DefaultLimits, Grace: berth.DefaultGrace},
	}
	if diff := cmp.Diff(want, file.Infrastructures); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(file.Warnings) != 1 || !strings.Contains(file.Warnings[0], "insecure_skip_tls_verify") {
		t.Errorf("warnings %q", file.Warnings)
	}
}

func TestAddDocker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "infra.yml")
	for _, source := range []berth.InfrastructureSource{{Name: "here", Kind: berth.KindDocker}, {Name: "there", Kind: berth.KindDocker, Address: "unix:///run/engine.sock"}} {
		if err := Add(path, source); err != nil {
			t.Fatal(err)
		}
	}
	file, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Infrastructures) != 2 || file.Infrastructures[0].Address != "unix:///var/run/docker.sock" || file.Infrastructures[1].Address != "unix:///run/engine.sock" {
		t.Errorf("%+v", file.Infrastructures)
	}
	if err := Add(path, berth.InfrastructureSource{Name: "wrong", Kind: berth.KindDocker, Address: "tcp://build.example:2376"}); berth.CodeOf(err) != berth.CodeInvalid || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("tcp:// without TLS: %v", err)
	}
}
