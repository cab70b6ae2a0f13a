package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/permissions"
)

// podMetricsList is as much as is needed of a PodMetricsList of
// metrics.k8s.io/v1beta1.
type podMetricsList struct {
	Items []podMetrics `json:"items"`
}

type podMetrics struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Timestamp  time.Time       `json:"timestamp"` // end of the time that the rates are of
	Window     metav1.Duration `json:"window"`
	Containers []struct {
		Name  string `json:"name"`
		Usage struct {
			CPU    resource.Quantity `json:"cpu"`
			Memory resource.Quantity `json:"memory"`
		} `json:"usage"`
	} `json:"containers"`
}

// reading is what the main container uses; false where nothing is said of it.
func (p *podMetrics) reading() (berth.Reading, bool) {
	for i := range p.Containers {
		if c := &p.Containers[i]; c.Name == MainContainer && !p.Timestamp.IsZero() {
			return berth.Reading{Source: berth.UsageFromCluster, At: p.Timestamp, Cores: float64(c.Usage.CPU.ScaledValue(resource.Nano)) / 1e9, Window: p.Window.Duration, MemoryBytes: c.Usage.Memory.Value()}, true
		}
	}
	return berth.Reading{}, false
}

// listMetrics is the right that reading metrics takes.
var listMetrics, _ = permissions.Find("list", "metrics.k8s.io", "pods", "")

// podMetrics lists what pods of the namespace use, those of an instance or all.
func (c *Client) podMetrics(ctx context.Context, selector string) (*podMetricsList, error) {
	request := c.Clientset.Discovery().RESTClient().Get().
		AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces/"+c.Namespace+"/pods").
		SetHeader("Accept", "application/json")
	if selector != "" {
		request = request.Param("labelSelector", selector)
	}
	body, err := request.Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	var list podMetricsList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("the answer of metrics.k8s.io can't be read: %w", err)
	}
	return &list, nil
}

// Usage lists what the instance's pods use, by one request. Whether that is
// granted is asked first, so that a namespace's audit log shows no refusal.
func (d *Driver) Usage(ctx context.Context) (map[string]berth.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !d.metered.Load() {
		granted, err := d.client.allowed(ctx, listMetrics, d.client.Namespace, "")
		if err != nil {
			return nil, err
		}
		if !granted {
			return nil, d.notGranted()
		}
		d.metered.Store(true)
	}
	list, err := d.client.podMetrics(ctx, berth.LabelInstance+"="+d.instance)
	switch {
	case apierrors.IsForbidden(err):
		d.metered.Store(false)
		return nil, d.notGranted()
	case apierrors.IsNotFound(err):
		return nil, &engine.Unmetered{Reason: noMetricsServer(d.config.Name)}
	case err != nil:
		return nil, err
	}
	readings := make(map[string]berth.Reading, len(list.Items))
	for i := range list.Items {
		if r, ok := list.Items[i].reading(); ok {
			readings[list.Items[i].Metadata.Name] = r
		}
	}
	return readings, nil
}

func (d *Driver) notGranted() error {
	return &engine.Unmetered{Reason: fmt.Sprintf("the kubeconfig of infrastructure %s may not read what pods use (%s): %s", d.config.Name, listMetrics, remedyFor(permissions.Metrics, d.client.Namespace))}
}

func noMetricsServer(infrastructure string) string {
	return "the cluster of infrastructure " + infrastructure + " does not measure pods: it has no metrics-server, which its engineer can install"
}

// checkMetrics says whether what tasks use can be read. Nobody has to want that.
func (c *Client) checkMetrics(ctx context.Context) []berth.CheckRow {
	row := berth.CheckRow{What: "metrics of tasks", Status: berth.CheckOK}
	granted, err := c.allowed(ctx, listMetrics, c.Namespace, "")
	if err == nil && !granted {
		row.Detail = "off: profile " + string(permissions.Metrics) + " is not granted; only tasks with steps and functions are measured"
		return []berth.CheckRow{row}
	}
	var list *podMetricsList
	if err == nil {
		list, err = c.podMetrics(ctx, "")
	}
	switch {
	case apierrors.IsNotFound(err):
		row.Status, row.Detail, row.Remedy = berth.CheckWarning, "granted, but "+noMetricsServer(c.Name), "ask the cluster's engineer to install metrics-server"
	case err != nil:
		row.Status, row.Detail, row.Remedy = berth.CheckWarning, "metrics-server does not answer: "+err.Error(), "try again; if it stays so, ask the cluster's engineer to look at metrics-server"
	case len(list.Items) == 0:
		row.Detail = "metrics-server answers; nothing runs in the namespace at the moment"
	default:
		newest := list.Items[0].Timestamp
		for i := range list.Items {
			if at := list.Items[i].Timestamp; at.After(newest) {
				newest = at
			}
		}
		row.Detail = fmt.Sprintf("metrics-server answers; its newest sample of %d pods is %s old", len(list.Items), max(0, time.Since(newest)).Round(time.Second))
	}
	return []berth.CheckRow{row}
}
