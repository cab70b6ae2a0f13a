// Package dask is the engine of Dask clusters (https://distributed.dask.org). It
// drives a scheduler by the HTTP server that Dask has for its dashboard, which
// listens on the loopback of the head's pod, as it has no authentication; never by
// Dask's own protocol, which carries pickled programs.
package dask

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/compute"
)

//go:embed launch.py
var launcher []byte

const (
	launchFile    = "launch.py"
	schedulerPort = 8786
	dashboardPort = 8787
	// ownMargin is how much longer than Berth a head waits before it ends itself,
	// where no Berth runs that would end it.
	ownMargin = 15 * time.Second
	// maxAnswer bounds what a head may answer: a thousand workers are 0.5 MB.
	maxAnswer = 32 << 20
)

// Engine is the engine of Dask clusters.
type Engine struct{}

var _ compute.Engine = Engine{}

// Files has the program that starts heads and workers. It is no part of an image,
// so that any image with Dask will do, and it drives the Dask that is there.
func (Engine) Files() map[string][]byte { return map[string][]byte{launchFile: launcher} }

// command starts a role: arguments of the image's own ENTRYPOINT, where it has
// one, as images prepare their Python by that.
func command(role string) []string {
	return []string{"python3", berth.ClusterSecretPath + "/" + launchFile, role}
}

func variable(spec *berth.TaskSpec, name, value string) {
	spec.Env = append(spec.Env, berth.EnvVar{Name: name, Value: value})
}

// Head completes the task of a scheduler.
func (Engine) Head(c *berth.Cluster, spec *berth.TaskSpec) {
	spec.Args = command("head")
	variable(spec, "BERTH_CLUSTER_TLS", berth.ClusterSecretPath)
	variable(spec, "BERTH_CLUSTER_PREFIX", "/"+c.ID)
	for name, limit := range map[string]time.Duration{"BERTH_IDLE_TIMEOUT": c.Spec.IdleTimeout, "BERTH_NO_CLIENT_TIMEOUT": c.Spec.NoClientTimeout} {
		if limit > 0 {
			variable(spec, name, strconv.FormatFloat((limit+ownMargin).Seconds(), 'f', -1, 64))
		}
	}
}

// Worker completes the task of a worker: as many threads as it has whole CPUs.
func (Engine) Worker(_ *berth.Cluster, g *berth.ClusterGroup, head string, spec *berth.TaskSpec) {
	spec.Args = command("worker")
	variable(spec, "BERTH_CLUSTER_TLS", berth.ClusterSecretPath)
	variable(spec, "BERTH_CLUSTER_HEAD", "tls://"+net.JoinHostPort(head, strconv.Itoa(schedulerPort)))
	if milli, err := spec.CPU.MilliCPU(); err == nil {
		variable(spec, "BERTH_WORKER_THREADS", strconv.FormatInt(max(1, milli/1000), 10))
	}
	if size, err := spec.Memory.Bytes(); err == nil {
		variable(spec, "BERTH_WORKER_MEMORY", strconv.FormatInt(size, 10))
	}
	if g.GPU > 0 {
		variable(spec, "BERTH_WORKER_GPU", strconv.Itoa(g.GPU))
	}
}

// Port is where a scheduler listens.
func (Engine) Port(port berth.ClusterPort) int {
	if port == berth.ClusterDashboard {
		return dashboardPort
	}
	return schedulerPort
}

// head drives a scheduler.
type head struct {
	base   string
	client *http.Client
}

// Connect returns what drives a cluster's scheduler.
func (Engine) Connect(c *berth.Cluster, dial func(context.Context) (net.Conn, error)) compute.Head {
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, DisableCompression: true,
	}
	return &head{base: "http://head/" + c.ID, client: &http.Client{Transport: transport}}
}

func (h *head) Close() { h.client.CloseIdleConnections() }

// state is what the launcher's route answers.
type state struct {
	Versions   map[string]string `json:"versions"`
	Mark       string            `json:"mark"`
	Clients    int               `json:"clients"`
	Alone      *float64          `json:"alone"` // s since a client was connected
	Unfinished int               `json:"unfinished"`
	Target     int               `json:"target"`
	Workers    map[string]struct {
		Status     string            `json:"status"`
		Executing  int               `json:"executing"`
		Processing int               `json:"processing"`
		Versions   map[string]string `json:"versions"`
		Draining   bool              `json:"draining"`
		Drained    bool              `json:"drained"`
		Error      string            `json:"error"`
	} `json:"workers"`
}

// State asks the scheduler how the cluster stands.
func (h *head) State(ctx context.Context) (*compute.State, error) {
	var s state
	if err := h.call(ctx, http.MethodGet, "/berth/state", nil, &s); err != nil {
		return nil, err
	}
	out := &compute.State{Versions: s.Versions, Mark: s.Mark, Clients: s.Clients, Unfinished: s.Unfinished, Target: s.Target, Workers: make(map[string]compute.Worker, len(s.Workers))}
	if s.Alone != nil && s.Clients == 0 {
		alone := time.Duration(*s.Alone * float64(time.Second))
		out.Alone = &alone
	}
	for name, w := range s.Workers {
		out.Workers[name] = compute.Worker{
			Running: w.Status != "" && w.Status != "closed", Executing: w.Executing, Pending: w.Processing, Versions: w.Versions,
			Draining: w.Draining, Drained: w.Drained, Trouble: w.Error,
		}
	}
	return out, nil
}

// Drain has workers retired: they begin nothing any more, finish what they compute,
// and what they hold is moved to others.
func (h *head) Drain(ctx context.Context, workers []string) error {
	body, err := json.Marshal(map[string][]string{"workers": workers})
	if err != nil {
		return err
	}
	return h.call(ctx, http.MethodPost, "/berth/drain", body, nil)
}

func (h *head) call(ctx context.Context, method, path string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, h.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := h.client.Do(request)
	if err != nil {
		var told *url.Error // with an address that nobody knows
		if errors.As(err, &told) {
			err = told.Err
		}
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("its HTTP server answered %s: %s", response.Status, strings.TrimSpace(string(text[:min(len(text), 200)])))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("its HTTP server answered what is no state of a cluster: %w", err)
	}
	return nil
}
