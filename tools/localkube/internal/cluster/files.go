package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth/tools/localkube/internal/image"
)

// write writes a file of the cluster's state.
func (c *Cluster) write(name, content string) error {
	path := c.file(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// auditPolicy records who asked for what and what was answered, and no bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  users: ["system:apiserver"]
- level: Metadata
`

// schedulerConfig: the default of 50 requests a second would halve what a cluster can do.
func (c *Cluster) schedulerConfig() string {
	return fmt.Sprintf(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %q, qps: 2000, burst: 4000}
`, c.pki().Path("scheduler.kubeconfig"))
}

func (c *Cluster) proxyConfig() string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: %s
clientConnection: {kubeconfig: %q}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, c.plan.Pods(), c.pki().Path("proxy.kubeconfig"))
}

// containerdConfig: without CAP_SYS_RESOURCE a sandbox can't lower its OOM score, so that is restricted.
// Registries are configured by files in certs.d, which apply at once. Pods' namespaces and what runc
// knows lie in the cluster's own folder too: their usual places are shared, and nobody could tell later
// which of them are whose.
func (c *Cluster) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = %q
[ttrpc]
address = %q
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
sandbox_image = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = %q
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = %q
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = %q
`, c.file("containerd"), filepath.Join(c.run, "containerd"), c.socket("containerd"), c.socket("containerd-ttrpc"), image.Pause, filepath.Join(c.run, "runc"), c.file("cni/net.d"), c.file("certs.d"))
}

// cniConfig gives each pod a link and a route of its own.
func (c *Cluster) cniConfig() string {
	return fmt.Sprintf(`{"cniVersion": "0.4.0", "name": %q, "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": %q}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`, c.group().Name, c.plan.Pods(), c.file("cni/addresses"))
}

func (c *Cluster) kubeletConfig(maxPods int, dns bool) string {
	lines := []string{
		"apiVersion: kubelet.config.k8s.io/v1beta1",
		"kind: KubeletConfiguration",
		"cgroupDriver: cgroupfs",
		"cgroupRoot: /" + c.group().Name,
		"failSwapOn: false",
		"failCgroupV1: false",
		"enforceNodeAllocatable: []",
		"imageGCHighThresholdPercent: 100",
		"imageGCLowThresholdPercent: 99",
		// A machine whose disk is nearly full still runs tests.
		`evictionHard: {memory.available: "50Mi", nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%"}`,
		"registryPullQPS: 0",
		// 0 would be 5 a second, and not no limit: events of what a test does would come a minute after it, or never.
		"eventRecordQPS: 1000",
		"eventBurst: 1000",
		"serializeImagePulls: false",
		// Not /var/log/pods: a kubelet deletes logs there of pods that it doesn't know, another cluster's.
		fmt.Sprintf("podLogsDir: %q", c.podLogs()),
		fmt.Sprintf("maxPods: %d", maxPods),
		fmt.Sprintf("containerRuntimeEndpoint: %q", "unix://"+c.socket("containerd")),
		fmt.Sprintf("authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}", c.pki().Path("ca.crt")),
		"authorization: {mode: Webhook}",
		fmt.Sprintf("tlsCertFile: %q", c.pki().Path("kubelet.crt")),
		fmt.Sprintf("tlsPrivateKeyFile: %q", c.pki().Path("kubelet.key")),
		fmt.Sprintf("resolvConf: %q", c.file("resolv.conf")),
		"clusterDomain: cluster.local",
	}
	if dns {
		lines = append(lines, fmt.Sprintf("clusterDNS: [%s]", c.plan.DNS()))
	}
	return strings.Join(lines, "\n") + "\n"
}

// corefile answers for the cluster's own names and says of all others that they don't exist: nothing is
// asked of the world. Two server blocks, as a template comes before the cluster's names within one.
func (c *Cluster) corefile() string {
	return fmt.Sprintf(`cluster.local:53 in-addr.arpa:53 {
    bind %[1]s
    errors
    ready %[1]s:8181
    kubernetes cluster.local in-addr.arpa {
        kubeconfig %[2]q
        pods verified
    }
    cache 5
}
.:53 {
    bind %[1]s
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`, c.plan.DNS(), c.pki().Path("admin.kubeconfig"))
}
