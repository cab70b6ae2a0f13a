//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/berth-run/berth"
)

// load brings a package to the cluster's node, and returns what it runs as there.
func (s *site) load(name string) string {
	s.t.Helper()
	state, err := filepath.Abs(os.Getenv("BERTH_E2E_STATE"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(berthBinary, "package", "load", name, "--into", "localkube:"+filepath.Base(state))
	// localkube finds its clusters in the folder that it is started in.
	cmd.Dir = filepath.Dir(filepath.Dir(state))
	cmd.Env = append(os.Environ(), "BERTH_INFRA="+filepath.Join(s.dir, "infra.yml"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("package load %s: %v\n%s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// loadedAgent is the agent's image on the node, once it was brought there.
var loadedAgent struct {
	sync.Mutex
	image string
}

// agentLoaded is a line of infra.yml with the agent, which is brought to the
// cluster's node.
func (s *site) agentLoaded() string {
	s.t.Helper()
	loadedAgent.Lock()
	defer loadedAgent.Unlock()
	if loadedAgent.image == "" {
		loadedAgent.image = s.load("berth/let")
	}
	return "agent_image: " + loadedAgent.image + "\n"
}

// Where there is no registry a package is loaded into the cluster, and runs by
// its digest; so does the agent that steps need.
func TestPackagesAreLoadedWhereThereIsNoRegistry(t *testing.T) {
	s := newSite(t, "functions")
	s.build("arithmetic-bash")
	reference := s.load("arithmetic-bash")
	agent := s.load("berth/let")
	s.infra("agent_image: " + agent + "\n")
	if got := s.must("call", "arithmetic-bash", "add", "a=3", "b=4"); got != "7\n" {
		t.Errorf("3 + 4 is %q", got)
	}
	if got := s.tasks()[0].Spec.Image; got != reference || !strings.Contains(got, "@sha256:") {
		t.Errorf("it ran the image %s, and %s was loaded", got, reference)
	}
	file := s.write("task.yaml", "version: 1\nimage: "+busybox+"\nsteps: [{run: echo one}, {run: echo two}]\n")
	if got := s.must("run", "-f", file); got != "one\ntwo\n" {
		t.Errorf("%q", got)
	}
	if r := s.berth("package", "load", "arithmetic-bash", "--into", "localkube:nowhere"); r.code != berth.ExitNone || !strings.Contains(r.stderr, "nowhere") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}
