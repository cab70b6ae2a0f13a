package berth_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berth-run/berth"

// allowed says which packages of this module each package may import, beside
// the root. Adapters know the domain and not each other; internal/control
// alone wires them together.
var allowed = map[string][]string{
	"":                                    {"internal/nearest"},
	"client":                              {"internal/config", "internal/control", "internal/rpc", "internal/version"},
	"cmd/berth":                           {"internal/cli", "internal/kube"},
	"examples/arithmetic-go":              {},
	"examples/client":                     {"client"},
	"cmd/berthlet":                        {"internal/let"},
	"internal/agent":                      {},
	"internal/agentbin":                   {},
	"internal/bucket":                     {"internal/objects"},
	"internal/childtest":                  {},
	"internal/build":                      {"internal/agent", "internal/agentbin", "internal/images", "internal/pack"},
	"internal/images":                     {},
	"internal/redirect":                   {"internal/agent"},
	"internal/registry":                   {"internal/objects"},
	"internal/cli":                        {"client", "internal/agentbin", "internal/build", "internal/config", "internal/control", "internal/datafs", "internal/images", "internal/kubeconfig", "internal/pack", "internal/taskfile", "internal/version", "internal/workflow"},
	"internal/compute":                    {"internal/crash"},
	"internal/compute/dask":               {"internal/compute"},
	"internal/dashboard":                  {},
	"internal/config":                     {"internal/yamlstrict"},
	"internal/control":                    {"internal/agent", "internal/agentbin", "internal/blobs", "internal/build", "internal/bucket", "internal/compute", "internal/compute/dask", "internal/config", "internal/dashboard", "internal/datafs", "internal/diagnosis", "internal/docker", "internal/engine", "internal/images", "internal/kube", "internal/lease", "internal/logs", "internal/objects", "internal/registry", "internal/rpc", "internal/runs", "internal/schedules", "internal/server", "internal/store", "internal/timetable", "internal/workflow"},
	"internal/crash":                      {},
	"internal/blobs":                      {},
	"internal/datafs":                     {},
	"internal/crash/points":               {},
	"internal/diagnosis":                  {"internal/agent", "internal/permissions"},
	"internal/docker":                     {"internal/agent", "internal/diagnosis", "internal/engine"},
	"internal/drivertest":                 {"internal/agent", "internal/engine"},
	"internal/engine":                     {"internal/agent", "internal/crash"},
	"internal/kube":                       {"internal/agent", "internal/crash", "internal/diagnosis", "internal/engine", "internal/permissions", "internal/version"},
	"internal/kubeconfig":                 {"internal/permissions"},
	"internal/lease":                      {},
	"internal/let":                        {"internal/agent", "internal/blobs", "internal/datafs", "internal/redirect", "internal/yamlstrict"},
	"internal/logs":                       {"internal/crash", "internal/objects"},
	"internal/nearest":                    {},
	"internal/objects":                    {},
	"internal/objects/objecttest":         {"internal/objects"},
	"internal/s3test":                     {"internal/childtest"},
	"internal/pack":                       {"internal/yamlstrict"},
	"internal/pgtest":                     {"internal/childtest"},
	"internal/permissions":                {},
	"internal/rpc":                        {"internal/agent", "internal/rpc/berthv1", "internal/rpc/berthv1/berthv1connect"},
	"internal/rpc/berthv1":                {},
	"internal/runs":                       {"internal/crash", "internal/workflow"},
	"internal/rpc/berthv1/berthv1connect": {"internal/rpc/berthv1"},
	"internal/schedules":                  {"internal/timetable"},
	"internal/timetable":                  {},
	"internal/server":                     {"internal/crash"},
	"internal/store":                      {"internal/crash"},
	"internal/taskfile":                   {"internal/yamlstrict"},
	"internal/version":                    {},
	"internal/workflow":                   {"internal/nearest"},
	"internal/yamlstrict":                 {"internal/nearest"},
	"test/cli":                            {},
	"test/bench":                          {"client", "internal/pgtest", "internal/store", "internal/workflow"},
}

// outside says which modules only some packages may import.
var outside = map[string][]string{
	"k8s.io/":           {"internal/kube", "internal/diagnosis", "internal/kubeconfig", "internal/permissions", "test/bench"},
	"database/sql":      {"internal/pgtest", "internal/store"},
	"modernc.org/":      {"internal/store"},
	"github.com/jackc/": {"internal/pgtest", "internal/store"},
	"net/http":          {"internal/rpc", "internal/rpc/berthv1/berthv1connect", "internal/control", "internal/blobs", "internal/compute/dask", "internal/dashboard", "internal/datafs", "internal/docker", "internal/kube", "internal/kubeconfig", "internal/diagnosis", "internal/let", "internal/redirect", "internal/images", "internal/registry", "internal/server", "internal/bucket", "client", "test/bench"},
	"github.com/google/go-containerregistry/": {"internal/build", "internal/cli", "internal/images", "internal/docker"},
	"github.com/distribution/":                {"internal/registry"},
	"github.com/moby/":                        {"internal/build", "internal/docker"},
	"github.com/prometheus/":                  {"internal/server"},
	"connectrpc.com/":                         {"internal/rpc", "internal/rpc/berthv1/berthv1connect"},
	"github.com/aws/":                         {"internal/bucket"},
	"github.com/google/nftables":              {"internal/redirect"},
	"github.com/mdlayher/netlink":             {"internal/redirect"},
	"gocloud.dev/":                            {"internal/bucket"},
	"go.starlark.net/":                        {"internal/workflow"},
	"github.com/netresearch/go-cron":          {"internal/timetable"},
	"github.com/spf13/cobra":                  {"internal/cli"},
	"github.com/goccy/go-yaml":                {"internal/config", "internal/taskfile", "internal/yamlstrict"},
}

func TestImportsKeepTheShape(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		inside, known := allowed[name]
		if !known {
			t.Errorf("package %s is new: say in this test what it may import", name)
			continue
		}
		for _, imported := range p.Imports {
			if local, ok := strings.CutPrefix(imported, module+"/"); ok {
				if !slices.Contains(inside, local) {
					t.Errorf("%s imports %s, which it may not", name, local)
				}
				continue
			}
			for prefix, who := range outside {
				if strings.HasPrefix(imported, prefix) && !slices.Contains(who, name) {
					t.Errorf("%s imports %s, which only %v may", name, imported, who)
				}
			}
		}
	}
}
