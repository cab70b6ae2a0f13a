package cluster

import (
	"context"
	"fmt"
)

type object = map[string]any

// registerMetrics tells the API server where metrics.k8s.io is served: by a process of the node, which a
// Service without a selector names.
func (c *Cluster) registerMetrics(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	labels := object{"kubernetes.io/service-name": "metrics-server"}
	for _, step := range []struct {
		path   string
		object object
	}{
		{"/api/v1/namespaces/kube-system/services", object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "metrics-server"}, "spec": object{"ports": []object{{"name": "https", "port": 443, "targetPort": 10443}}}}},
		{"/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", object{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": object{"name": "metrics-server", "labels": labels}, "addressType": "IPv4",
			"endpoints": []object{{"addresses": []string{c.plan.Node().String()}, "conditions": object{"ready": true}}}, "ports": []object{{"name": "https", "port": 10443, "protocol": "TCP"}},
		}},
		{"/apis/apiregistration.k8s.io/v1/apiservices", object{
			"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": object{"name": "v1beta1.metrics.k8s.io"},
			"spec": object{"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true, "service": object{"name": "metrics-server", "namespace": "kube-system", "port": 443}},
		}},
	} {
		if err := client.Create(ctx, step.path, step.object); err != nil {
			return fmt.Errorf("register metrics-server: %w", err)
		}
	}
	return nil
}

// grantKubelet lets the API server ask kubelets for logs and more.
func (c *Cluster) grantKubelet(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return client.Create(ctx, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", object{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": object{"name": "localkube-apiserver-kubelet"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
		"subjects": []object{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-kubelet-client"}},
	})
}

// nodesReady counts the nodes that are ready.
func (c *Cluster) nodesReady(ctx context.Context) (int, error) {
	client, err := c.client()
	if err != nil {
		return 0, err
	}
	var list struct {
		Items []struct {
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := client.Get(ctx, "/api/v1/nodes", &list); err != nil {
		return 0, err
	}
	ready := 0
	for _, node := range list.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				ready++
			}
		}
	}
	return ready, nil
}
