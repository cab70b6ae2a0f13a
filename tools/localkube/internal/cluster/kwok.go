package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/berth-run/berth/tools/localkube/internal/simulated"
)

// kwokStages is how simulated nodes and pods live: a node is ready at once; a pod runs, ends well if it
// is one that ends (restartPolicy Never or OnFailure), and goes away when it is deleted. kwok exits
// without stages.
const kwokStages = `kind: Stage
apiVersion: kwok.x-k8s.io/v1alpha1
metadata: {name: node-initialize}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      {{ range NodeConditions }}
      - lastHeartbeatTime: {{ $now | Quote }}
        lastTransitionTime: {{ $now | Quote }}
        message: {{ .message | Quote }}
        reason: {{ .reason | Quote }}
        status: {{ .status | Quote }}
        type: {{ .type | Quote }}
      {{ end }}
      addresses:
      - {address: {{ NodeIP | Quote }}, type: InternalIP}
      - {address: {{ NodeName | Quote }}, type: Hostname}
      daemonEndpoints: {kubeletEndpoint: {Port: {{ NodePort }}}}
      allocatable: {cpu: "1000", memory: 4Ti, pods: "10000", ephemeral-storage: 10Ti}
      capacity: {cpu: "1000", memory: 4Ti, pods: "10000", ephemeral-storage: 10Ti}
      nodeInfo: {architecture: amd64, bootID: "", containerRuntimeVersion: kwok, kernelVersion: kwok, kubeProxyVersion: kwok, kubeletVersion: kwok, machineID: "", operatingSystem: linux, osImage: "", systemUUID: ""}
      phase: Running
---
kind: Stage
apiVersion: kwok.x-k8s.io/v1alpha1
metadata: {name: node-heartbeat-with-lease}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.phase', operator: In, values: [Running]}
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: In, values: ["True"]}
  delay: {durationMilliseconds: 600000, jitterDurationMilliseconds: 610000}
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      {{ range NodeConditions }}
      - lastHeartbeatTime: {{ $now | Quote }}
        lastTransitionTime: {{ $now | Quote }}
        message: {{ .message | Quote }}
        reason: {{ .reason | Quote }}
        status: {{ .status | Quote }}
        type: {{ .type | Quote }}
      {{ end }}
---
kind: Stage
apiVersion: kwok.x-k8s.io/v1alpha1
metadata: {name: pod-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Pending]}
    - {key: '.spec.nodeName', operator: Exists}
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      - {lastTransitionTime: {{ $now | Quote }}, status: "True", type: Initialized}
      - {lastTransitionTime: {{ $now | Quote }}, status: "True", type: Ready}
      - {lastTransitionTime: {{ $now | Quote }}, status: "True", type: ContainersReady}
      containerStatuses:
      {{ range .spec.containers }}
      - image: {{ .image | Quote }}
        imageID: {{ .image | Quote }}
        name: {{ .name | Quote }}
        ready: true
        started: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
      phase: Running
      podIP: {{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) | Quote }}
      startTime: {{ $now | Quote }}
---
kind: Stage
apiVersion: kwok.x-k8s.io/v1alpha1
metadata: {name: pod-complete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Running]}
    - {key: '.spec.restartPolicy', operator: In, values: [Never, OnFailure]}
    - {key: '.metadata.labels["localkube/stay"]', operator: DoesNotExist}
  next:
    statusTemplate: |
      {{ $now := Now }}
      {{ $root := . }}
      containerStatuses:
      {{ range $index, $item := .spec.containers }}
      {{ $origin := index $root.status.containerStatuses $index }}
      - image: {{ $item.image | Quote }}
        imageID: {{ $item.image | Quote }}
        name: {{ $item.name | Quote }}
        ready: false
        started: false
        restartCount: 0
        state: {terminated: {exitCode: 0, finishedAt: {{ $now | Quote }}, reason: Completed, startedAt: {{ $origin.state.running.startedAt | Quote }}}}
      {{ end }}
      phase: Succeeded
---
kind: Stage
apiVersion: kwok.x-k8s.io/v1alpha1
metadata: {name: pod-delete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: Exists}
  next: {delete: true}
`

// kubeletPort is where the API server asks a node for logs.
const kubeletPort = 10250

// startPodLogs runs this program itself as what answers for the logs of all simulated pods. kwok could
// too, but it never ends a log that is followed, and each keeps an inotify instance for good.
func (c *Cluster) startPodLogs() error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start pod-logs: %w", err)
	}
	return c.Processes().Start("pod-logs", c.namespace(), program, simulated.Command,
		"--address", netip.AddrPortFrom(c.plan.Node(), kubeletPort).String(),
		"--certificate", c.pki().Path("kubelet.crt"), "--key", c.pki().Path("kubelet.key"), "--authority", c.pki().Path("ca.crt"))
}

// startKwok runs kwok, and makes the nodes.
func (c *Cluster) startKwok(ctx context.Context, program string, nodes int) error {
	if err := c.write("kwok.yaml", kwokStages); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	for i := range nodes {
		name := fmt.Sprintf("kwok-%d", i)
		node := map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name, "labels": map[string]string{"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}}
		if err := client.Create(ctx, "/api/v1/nodes", node); err != nil {
			return fmt.Errorf("make the node %s: %w", name, err)
		}
	}
	return c.Processes().Start("kwok", c.namespace(), program,
		"--kubeconfig", c.pki().Path("admin.kubeconfig"), "--manage-all-nodes", "--config", c.file("kwok.yaml"),
		"--node-ip", c.plan.Node().String(), "--node-port", strconv.Itoa(kubeletPort), "--server-address", "127.0.0.1:10247",
		"--node-lease-duration-seconds", "40")
}
