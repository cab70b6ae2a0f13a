package control

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/agentbin"
	"github.com/berth-run/berth/internal/build"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/images"
)

// podLimit bounds how long a probe's pod may take.
const podLimit = 60 * time.Second

// passingLimit is how long there may be what often passes: a registry out of a
// node's reach, and what is in no table. Nodes try again, and once more may be
// enough.
const passingLimit = 10 * time.Second

// mayPass reports whether what keeps a pod from its start may pass by itself.
func mayPass(d *berth.Diagnosis) bool {
	return d != nil && (d.Cause == berth.CauseRegistryUnreachable || d.Cause == berth.CauseUnknown)
}

// clusterName is a name that the DNS of every Kubernetes resolves.
const clusterName = "kubernetes.default.svc"

// probe starts a pod that proves what only a pod can: that its node gets images
// from the infrastructure's registry, that it reaches callback_to, and that it
// resolves names. Rows are for what is configured.
func (h *Host) probe(ctx context.Context, entry berth.InfrastructureConfig) []berth.CheckRow {
	p := newProbed(entry)
	if entry.Registry == "" && entry.Kind == berth.KindKube && entry.AgentImage == "" || entry.Registry == "" && entry.Kind == berth.KindDocker && entry.CallbackTo == "" {
		p.notTried("there is no image to start a pod from", "set registry: or agent_image: of "+entry.Name+" in infra.yml")
		return p.rows()
	}
	outcome, started, err := h.runProbe(ctx, entry)
	if err != nil {
		outcome = &berth.Outcome{Diagnosis: &berth.Diagnosis{Summary: err.Error()}}
	}
	if d := outcome.Diagnosis; d != nil {
		p.fail(d, started)
	}
	p.lookedUp(outcome.Result)
	return p.rows()
}

// probed is what a probe has to tell.
type probed struct {
	pull, callback, dns berth.CheckRow
	entry               berth.InfrastructureConfig
}

func newProbed(entry berth.InfrastructureConfig) *probed {
	return &probed{
		pull:     berth.CheckRow{What: "pod → registry " + entry.Registry, Status: berth.CheckOK, Detail: "a pod's image is pulled from there"},
		callback: berth.CheckRow{What: "pod → " + entry.CallbackTo, Status: berth.CheckOK, Detail: "a pod reaches the control plane: results at once, heartbeats"},
		dns:      berth.CheckRow{What: "pod → DNS", Status: berth.CheckWarning, Detail: "not tried: the agent of the pod is of an older Berth"},
		entry:    entry,
	}
}

func (p *probed) rows() []berth.CheckRow {
	var rows []berth.CheckRow
	if p.entry.Registry != "" {
		rows = append(rows, p.pull)
	}
	if p.entry.CallbackTo != "" {
		rows = append(rows, p.callback)
	}
	if p.entry.Kind == berth.KindKube {
		rows = append(rows, p.dns)
	}
	for i := range rows {
		rows[i].Group = berth.CheckPods
	}
	return rows
}

func (p *probed) notTried(why, remedy string) {
	for _, row := range []*berth.CheckRow{&p.callback, &p.dns} {
		row.Status, row.Detail, row.Remedy = berth.CheckWarning, "not tried: "+why, remedy
	}
}

// fail puts what went wrong to the way that it barred.
func (p *probed) fail(d *berth.Diagnosis, started bool) {
	row := &p.pull
	switch {
	case p.entry.Registry == "" && p.entry.CallbackTo == "":
		row = &p.dns
	case started, p.entry.Registry == "":
		row = &p.callback
	}
	if !started {
		const notStarted = "not tried: the pod did not start"
		p.callback.Status, p.callback.Detail = berth.CheckWarning, notStarted
		p.dns.Detail = notStarted
	}
	row.Status, row.Detail, row.Remedy = berth.CheckFailed, d.Summary, d.Remedy.Text
}

// lookedUp takes in what became of the name.
func (p *probed) lookedUp(result json.RawMessage) {
	var found agent.Lookup
	if len(result) == 0 || json.Unmarshal(result, &found) != nil {
		return
	}
	if found.Error == "" {
		p.dns.Status, p.dns.Detail = berth.CheckOK, "a pod resolves "+clusterName+" to "+strings.Join(found.Addresses, ", ")
		return
	}
	p.dns.Status, p.dns.Detail = berth.CheckWarning, "a pod can't resolve names ("+found.Error+"): tasks can reach hosts by their addresses alone"
	p.dns.Remedy = "have the cluster's DNS looked at (CoreDNS, or a NetworkPolicy that bars UDP port 53)"
}

// runProbe runs one, and says how it ended and whether its program started.
func (h *Host) runProbe(ctx context.Context, entry berth.InfrastructureConfig) (*berth.Outcome, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, podLimit)
	defer cancel()
	id := xid.New().String()
	instance := "probe-" + id
	connection, err := h.connect(entry, instance)
	if err != nil {
		return nil, false, err
	}
	defer connection.close()
	pull := berth.PullDefault
	if entry.Registry != "" && entry.AgentImage == "" {
		pull = berth.PullAlways // what a node has already proves nothing
	}
	order := engine.Order{
		Instance: instance, TaskID: id, Attempt: 1, Pod: "berth-probe-" + id,
		Spec: berth.TaskSpec{CPU: entry.Defaults.CPU, Memory: entry.Defaults.Memory, Timeout: podLimit, Pull: pull},
		Agent: &engine.Agent{
			Order:  agent.Order{Version: agent.Version, Task: id, Attempt: 1, Pod: "berth-probe-" + id, Nonce: h.agents.Nonce(id), Probe: &agent.Probe{CA: h.config.CallbackCA}},
			Binary: agentbin.Binary,
		},
	}
	if entry.Kind == berth.KindKube {
		order.Agent.Order.Probe.Name = clusterName
	}
	if entry.CallbackTo != "" {
		if u, err := url.Parse(entry.CallbackTo); err == nil {
			order.Agent.Order.Probe.URL = u.JoinPath("/healthz").String()
		}
	}
	if entry.Registry != "" {
		if order.Agent.Registry = h.packages.login(entry, h.agents.keys); order.Agent.Registry != nil {
			order.Agent.Registry.Instance = h.store.Instance() // no Secret of its own, which nobody would delete
		}
	}
	if err := h.probeImage(ctx, entry, &order); err != nil {
		return nil, false, err
	}
	if err := h.behind(ctx, entry, &order); err != nil {
		return nil, false, err
	}
	return runOnce(ctx, connection, order, podLimit)
}

// behind has a pod that is no task's send through the proxy what it sends, where
// its infrastructure has one.
func (h *Host) behind(ctx context.Context, entry berth.InfrastructureConfig, order *engine.Order) (err error) {
	if entry.Proxy != nil {
		order.Proxy, err = h.agents.Proxy(ctx, entry)
	}
	return err
}

// runOnce makes a pod that is no task's, waits for its end, and deletes it. It
// says how it ended, and whether its program started.
func runOnce(ctx context.Context, connection *connection, order engine.Order, limit time.Duration) (*berth.Outcome, bool, error) {
	seen := &probeSink{name: order.Pod, observed: make(chan berth.Observation, 64)}
	go connection.Watch(ctx, seen)
	uid, err := connection.Create(ctx, order)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		clean, done := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer done()
		if deletion, err := connection.Delete(clean, order.Pod, uid, 0); err == nil && deletion == engine.DeletionStopped {
			_, _ = connection.Delete(clean, order.Pod, uid, 0)
		}
	}()
	var last berth.Observation
	var lasting <-chan time.Time
	for {
		select {
		case last = <-seen.observed:
			if !mayPass(last.Diagnosis) || last.Patience == berth.PatienceStart {
				lasting = nil
			} else if lasting == nil {
				lasting = time.After(passingLimit)
			}
		case <-lasting:
			return &berth.Outcome{Diagnosis: last.Diagnosis}, false, nil
		case <-ctx.Done():
			d := last.Diagnosis
			if d == nil {
				d = &berth.Diagnosis{Summary: "The pod did not end within " + limit.String() + "."}
			}
			return &berth.Outcome{Diagnosis: d}, !last.StartedAt.IsZero(), nil
		}
		started := !last.StartedAt.IsZero()
		switch {
		case last.Outcome != nil:
			return last.Outcome, started, nil
		case last.Gone:
			return &berth.Outcome{Diagnosis: &berth.Diagnosis{Summary: "The pod was deleted before it ended."}}, started, nil
		case last.Diagnosis != nil && !mayPass(last.Diagnosis) && last.Patience != berth.PatienceStart && last.Patience != berth.PatienceForever:
			return &berth.Outcome{Diagnosis: last.Diagnosis}, started, nil // it would be tried for a while yet, in vain
		}
	}
}

// probeImage says what a probe's pod is made from: the agent's own image.
func (h *Host) probeImage(ctx context.Context, entry berth.InfrastructureConfig, order *engine.Order) error {
	if entry.Kind == berth.KindDocker && entry.Registry == "" {
		digest, err := build.PushAgent(ctx, h.packages.store(), agentPackage)
		if err != nil {
			return err
		}
		order.Spec.Image = images.LoadTag(agentPackage, digest)
		order.Agent.Load = h.packages.loader(agentPackage, digest)
		return nil
	}
	image, err := h.packages.agentImage(ctx, entry)
	order.Spec.Image = image
	return err
}

// probeSink passes on what is seen of one pod.
type probeSink struct {
	name     string
	observed chan berth.Observation
}

func (s *probeSink) Listed(pods []berth.Observation, _ time.Time) {
	for _, pod := range pods {
		s.Observed(pod)
	}
}

func (s *probeSink) Observed(pod berth.Observation) {
	if pod.Pod != s.name {
		return
	}
	select {
	case s.observed <- pod:
	default: // nobody looks any more
	}
}

func (s *probeSink) Lost(*engine.Refusal) {}
