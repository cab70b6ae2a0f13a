package kube

import (
	"context"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

// checkProxy says whether what tasks send can go through the proxy of
// infra.yml. That the namespace takes the container that makes the rules is
// part of trying a task's pod.
func (d *Driver) checkProxy(ctx context.Context) []berth.CheckRow {
	proxy := d.config.Proxy
	if proxy == nil {
		return nil
	}
	row := berth.CheckRow{What: "proxy", Status: berth.CheckOK, Detail: "tasks send everything through " + proxy.Protocol + "://" + proxy.Address + ", which pods have to reach"}
	switch {
	case d.config.Registry == "" && d.config.AgentImage == "":
		row.Status, row.Detail = berth.CheckFailed, "pods can't get Berth's agent, which sends their traffic to the proxy"
		row.Remedy = "set registry: (Berth puts the agent there), or load it with berth package load berth/let and set agent_image: to what that prints"
	case proxy.User != "":
		p, _ := permissions.FindOf(permissions.Proxy, "create", "", "secrets", "")
		granted, err := d.client.allowed(ctx, p, d.client.Namespace, "")
		if err == nil && !granted {
			row.Status, row.Detail = berth.CheckMissing, "it has a login, and "+p.String()+" is not granted, which is needed "+p.For
			row.Remedy = remedyFor(permissions.Proxy, d.client.Namespace)
		}
	}
	return []berth.CheckRow{row}
}
