package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

func (c *Cluster) startEtcd(kubernetes string) error {
	return c.Processes().Start("etcd", c.namespace(), kubernetes, "etcd",
		"--data-dir", c.file("etcd"), "--unsafe-no-fsync", "--logger", "zap",
		// A member that is alone need not wait long for the votes of others: that takes half a second off the start.
		"--heartbeat-interval", "20", "--election-timeout", "200",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380")
}

func (c *Cluster) startAPIServer(kubernetes string) error {
	if err := c.write("audit-policy.yaml", auditPolicy); err != nil {
		return err
	}
	pki := c.pki()
	return c.Processes().Start("kube-apiserver", c.namespace(), kubernetes, "kube-apiserver",
		"--etcd-servers", "http://127.0.0.1:2379", "--service-cluster-ip-range", c.plan.Services().String(),
		"--advertise-address", c.plan.Node().String(), "--bind-address", "0.0.0.0", "--secure-port", "6443",
		"--tls-cert-file", pki.Path("apiserver.crt"), "--tls-private-key-file", pki.Path("apiserver.key"), "--client-ca-file", pki.Path("ca.crt"),
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction", "--allow-privileged=true",
		"--service-account-key-file", pki.Path("sa.key"), "--service-account-signing-key-file", pki.Path("sa.key"), "--service-account-issuer", "https://kubernetes.default.svc",
		"--kubelet-client-certificate", pki.Path("apiserver-kubelet-client.crt"), "--kubelet-client-key", pki.Path("apiserver-kubelet-client.key"), "--kubelet-preferred-address-types", "InternalIP",
		"--requestheader-client-ca-file", pki.Path("front-proxy-ca.crt"), "--requestheader-allowed-names", "front-proxy-client",
		"--requestheader-extra-headers-prefix", "X-Remote-Extra-", "--requestheader-group-headers", "X-Remote-Group", "--requestheader-username-headers", "X-Remote-User",
		"--proxy-client-cert-file", pki.Path("front-proxy-client.crt"), "--proxy-client-key-file", pki.Path("front-proxy-client.key"), "--enable-aggregator-routing=true",
		"--audit-policy-file", c.file("audit-policy.yaml"), "--audit-log-path", c.file("audit.log"), "--audit-log-maxsize", "100000") // MB: one file holds all
}

func (c *Cluster) startControllerManager(kubernetes string) error {
	pki := c.pki()
	return c.Processes().Start("kube-controller-manager", c.namespace(), kubernetes, "kube-controller-manager",
		"--kubeconfig", pki.Path("controller-manager.kubeconfig"), "--leader-elect=false", "--use-service-account-credentials",
		"--service-account-private-key-file", pki.Path("sa.key"), "--root-ca-file", pki.Path("ca.crt"),
		"--cluster-signing-cert-file", pki.Path("ca.crt"), "--cluster-signing-key-file", pki.Path("ca.key"),
		"--kube-api-qps", "500", "--kube-api-burst", "1000", "--node-monitor-period", "1s")
}

func (c *Cluster) startScheduler(kubernetes string) error {
	if err := c.write("scheduler.yaml", c.schedulerConfig()); err != nil {
		return err
	}
	return c.Processes().Start("kube-scheduler", c.namespace(), kubernetes, "kube-scheduler", "--config", c.file("scheduler.yaml"))
}

func (c *Cluster) startContainerd(containerd string) error {
	for name, content := range map[string]string{
		"containerd.toml": c.containerdConfig(), "cni/net.d/10-localkube.conflist": c.cniConfig(),
		"resolv.conf": "nameserver " + c.plan.DNS().String() + "\n",
	} {
		if err := c.write(name, content); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.file("certs.d"), 0o755); err != nil {
		return fmt.Errorf("make the folder of registries: %w", err)
	}
	return c.Processes().Start("containerd", c.namespace(), containerd, "--config", c.file("containerd.toml"))
}

func (c *Cluster) startKubelet(kubernetes string, maxPods int, dns bool) error {
	if err := c.write("kubelet.yaml", c.kubeletConfig(maxPods, dns)); err != nil {
		return err
	}
	return c.Processes().Start("kubelet", c.namespace(), kubernetes, "kubelet",
		"--config", c.file("kubelet.yaml"), "--kubeconfig", c.pki().Path("kubelet.kubeconfig"),
		"--hostname-override", c.Name, "--node-ip", c.plan.Node().String(), "--root-dir", c.kubeletFolder())
}

// kubeletFolder is short, for the sockets in it, and a mount of its own, whose mounts pods may share.
func (c *Cluster) kubeletFolder() string { return filepath.Join(c.run, "kubelet") }

// podLogs is where the kubelet has containers' output written.
func (c *Cluster) podLogs() string { return c.file("pod-logs") }

func (c *Cluster) startProxy(kubernetes string) error {
	if err := c.write("proxy.yaml", c.proxyConfig()); err != nil {
		return err
	}
	return c.Processes().Start("kube-proxy", c.namespace(), kubernetes, "kube-proxy", "--config", c.file("proxy.yaml"), "--hostname-override", c.Name)
}

func (c *Cluster) startDNS(coredns string) error {
	if err := c.write("Corefile", c.corefile()); err != nil {
		return err
	}
	return c.Processes().Start("coredns", c.namespace(), coredns, "-conf", c.file("Corefile"))
}

func (c *Cluster) startMetrics(program string) error {
	pki := c.pki()
	return c.Processes().Start("metrics-server", c.namespace(), program,
		"--kubeconfig", pki.Path("admin.kubeconfig"), "--authentication-kubeconfig", pki.Path("admin.kubeconfig"), "--authorization-kubeconfig", pki.Path("admin.kubeconfig"),
		"--secure-port", "10443", "--bind-address", c.plan.Node().String(), "--tls-cert-file", pki.Path("kubelet.crt"), "--tls-private-key-file", pki.Path("kubelet.key"),
		"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s", "--kubelet-request-timeout=5s")
}
