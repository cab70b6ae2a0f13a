package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/berth-run/berth"
)

// Check connects, and compares what the Engine offers with what is needed. The
// error is for an Engine that does not answer, or not to us; all else is a row.
func (d *Driver) Check(ctx context.Context) (berth.InfrastructureCheck, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	check := berth.InfrastructureCheck{Name: d.client.Name, Address: d.client.Server, OK: true}
	add := func(row berth.CheckRow) { check.Add(berth.CheckCluster, row) }
	v, err := d.client.api.ServerVersion(ctx, client.ServerVersionOptions{}) // opens the connection
	if err != nil {
		return check, d.unreachable(err)
	}
	check.ServerVersion = v.Version
	add(berth.CheckRow{What: "server version", Status: berth.CheckOK, Detail: v.Version + ", API " + v.APIVersion})
	began := time.Now()
	result, err := d.client.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return check, d.unreachable(err)
	}
	check.Latency = time.Since(began)
	info := result.Info
	add(berth.CheckRow{What: "latency", Status: berth.CheckOK, Detail: check.Latency.Round(100 * time.Microsecond).String()})
	add(checkSystem(info.OSType, info.Architecture))
	add(berth.CheckRow{What: "machine", Status: berth.CheckOK, Detail: fmt.Sprintf("%s: %d CPUs, %.1f GiB of memory", info.Name, info.NCPU, float64(info.MemTotal)/(1<<30))})
	add(berth.CheckRow{What: "storage", Status: berth.CheckOK, Detail: "driver " + info.Driver + ", in " + info.DockerRootDir})
	add(limit("memory limits", info.MemoryLimit, "--memory is not kept"))
	add(limit("CPU limits", info.CPUCfsQuota, "--cpu is not kept"))
	add(limit("no swap beyond --memory", info.SwapLimit, "a task may use swap beyond --memory"))
	add(checkSeccomp(info.SecurityOptions))
	_, err = d.client.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", berth.LabelInstance+"="+d.instance)})
	row := berth.CheckRow{What: "containers", Status: berth.CheckOK, Detail: "may be listed; whoever reaches this address may do anything as root on that machine"}
	if err != nil {
		row.Status, row.Detail, row.Remedy = berth.CheckFailed, err.Error(), "have this access granted by whoever runs the Docker Engine"
	}
	add(row)
	if d.config.InsecureSkipTLSVerify {
		add(berth.CheckRow{What: "infra.yml", Status: berth.CheckWarning, Detail: "TLS is not verified (insecure_skip_tls_verify: true)"})
	}
	return check, nil
}

func checkSystem(system, architecture string) berth.CheckRow {
	row := berth.CheckRow{What: "system", Status: berth.CheckOK, Detail: system + "/" + architecture}
	if system != "" && system != "linux" {
		row.Status, row.Remedy = berth.CheckFailed, "use an Engine that runs Linux containers"
	}
	return row
}

// limit is the row of something that the machine's cgroups have to allow.
func limit(what string, kept bool, otherwise string) berth.CheckRow {
	if kept {
		return berth.CheckRow{What: what, Status: berth.CheckOK, Detail: "kept by cgroups"}
	}
	return berth.CheckRow{What: what, Status: berth.CheckWarning, Detail: otherwise + ": the machine's cgroups don't offer it", Remedy: "have that cgroup controller switched on, if tasks should be held to it"}
}

func checkSeccomp(options []string) berth.CheckRow {
	if slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "name=seccomp") }) {
		return berth.CheckRow{What: "seccomp", Status: berth.CheckOK, Detail: strings.Join(options, "; ")}
	}
	return berth.CheckRow{What: "seccomp", Status: berth.CheckWarning, Detail: "system calls are not filtered", Remedy: "use an Engine with seccomp"}
}

// unreachable tells a person why there was no answer.
func (d *Driver) unreachable(err error) error {
	refusal := d.refusal(err, "check", "")
	code := berth.CodeUnavailable
	if refusal.Diagnosis.Cause == berth.CauseUnauthorized {
		code = berth.CodeUnauthorized
	}
	return berth.Errorf(code, "%s %s: %w", refusal.Diagnosis.Summary, refusal.Diagnosis.Remedy.Text, err)
}
