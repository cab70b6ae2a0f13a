package rpc

import (
	"math"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

// narrow keeps a number that is too great too great.
func narrow(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }

func fromGroup(g *berth.ClusterGroup) *pb.ClusterGroup {
	return &pb.ClusterGroup{
		Name: g.Name, Count: narrow(g.Count), Min: narrow(g.Min), Max: narrow(g.Max), Image: g.Image, Cpu: string(g.CPU), Memory: string(g.Memory),
		Gpu: int32(g.GPU), EphemeralStorage: string(g.EphemeralStorage), Labels: g.Labels, Env: fromEnv(g.Env),
	}
}

func toGroup(g *pb.ClusterGroup) berth.ClusterGroup {
	return berth.ClusterGroup{
		Name: g.GetName(), Count: int(g.GetCount()), Min: int(g.GetMin()), Max: int(g.GetMax()), Image: g.GetImage(), CPU: berth.Quantity(g.GetCpu()), Memory: berth.Quantity(g.GetMemory()),
		GPU: int(g.GetGpu()), EphemeralStorage: berth.Quantity(g.GetEphemeralStorage()), Labels: g.GetLabels(), Env: toEnv(g.GetEnv()),
	}
}

func fromClusterSpec(s *berth.ClusterSpec) *pb.ClusterSpec {
	out := &pb.ClusterSpec{
		Name: s.Name, Engine: s.Engine, Infrastructure: s.Infrastructure, Image: s.Image, User: s.User, Pull: string(s.Pull), Env: fromEnv(s.Env), Labels: s.Labels, Head: fromGroup(&s.Head),
		IdleTimeout: durationpb.New(s.IdleTimeout), NoClientTimeout: durationpb.New(s.NoClientTimeout), MaxLifetime: durationpb.New(s.MaxLifetime), DrainTimeout: durationpb.New(s.DrainTimeout),
	}
	for i := range s.Workers {
		out.Workers = append(out.Workers, fromGroup(&s.Workers[i]))
	}
	return out
}

func toClusterSpec(s *pb.ClusterSpec) berth.ClusterSpec {
	out := berth.ClusterSpec{
		Name: s.GetName(), Engine: s.GetEngine(), Infrastructure: s.GetInfrastructure(), Image: s.GetImage(), User: s.GetUser(), Pull: berth.PullPolicy(s.GetPull()), Env: toEnv(s.GetEnv()), Labels: s.GetLabels(), Head: toGroup(s.GetHead()),
		Workers: []berth.ClusterGroup{}, IdleTimeout: berth.DefaultIdleTimeout, NoClientTimeout: s.GetNoClientTimeout().AsDuration(), MaxLifetime: s.GetMaxLifetime().AsDuration(), DrainTimeout: s.GetDrainTimeout().AsDuration(),
	}
	if s.GetIdleTimeout() != nil {
		out.IdleTimeout = s.GetIdleTimeout().AsDuration()
	}
	for _, g := range s.GetWorkers() {
		out.Workers = append(out.Workers, toGroup(g))
	}
	return out
}

func fromCluster(c *berth.Cluster) *pb.Cluster {
	out := &pb.Cluster{
		Id: c.ID, Name: c.Name, State: string(c.State), Infrastructure: c.Infrastructure, Owner: c.Owner, Reason: c.Reason, Diagnosis: fromDiagnosis(c.Diagnosis),
		CreatedAt: fromTime(c.CreatedAt), StartedAt: fromTimePtr(c.StartedAt), FinishedAt: fromTimePtr(c.FinishedAt), IdleSince: fromTimePtr(c.IdleSince), EndsAt: fromTimePtr(c.EndsAt),
		Head: &pb.ClusterHead{Task: c.Head.Task, State: (*string)(c.Head.State), Versions: c.Head.Versions}, Warnings: c.Warnings, Spec: fromClusterSpec(&c.Spec), Dashboard: c.Dashboard,
	}
	if c.Clients != nil {
		n := int32(*c.Clients)
		out.Clients = &n
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		status := &pb.GroupStatus{Name: g.Name, Wanted: int32(g.Wanted), Ready: int32(g.Ready), Waiting: int32(g.Waiting), Draining: int32(g.Draining), Lost: map[string]int32{}, Diagnosis: fromDiagnosis(g.Diagnosis), Versions: g.Versions}
		for cause, n := range g.Lost {
			status.Lost[cause] = int32(n)
		}
		out.Groups = append(out.Groups, status)
	}
	return out
}

func toCluster(c *pb.Cluster) berth.Cluster {
	out := berth.Cluster{
		ID: c.GetId(), Name: c.GetName(), State: berth.ClusterState(c.GetState()), Infrastructure: c.GetInfrastructure(), Owner: c.GetOwner(), Reason: c.Reason, Diagnosis: toDiagnosis(c.GetDiagnosis()),
		CreatedAt: toTime(c.GetCreatedAt()), StartedAt: toTimePtr(c.GetStartedAt()), FinishedAt: toTimePtr(c.GetFinishedAt()), IdleSince: toTimePtr(c.GetIdleSince()), EndsAt: toTimePtr(c.GetEndsAt()),
		Head: berth.ClusterHead{Versions: orEmpty(c.GetHead().GetVersions())}, Groups: []berth.GroupStatus{},
		Warnings: append([]string{}, c.GetWarnings()...), Spec: toClusterSpec(c.GetSpec()), Dashboard: c.Dashboard,
	}
	out.Engine, out.Image = out.Spec.Engine, out.Spec.Image
	if c.GetHead() != nil {
		out.Head.Task, out.Head.State = c.Head.Task, (*berth.TaskState)(c.Head.State)
	}
	if c.Clients != nil {
		n := int(*c.Clients)
		out.Clients = &n
	}
	for _, g := range c.GetGroups() {
		status := berth.GroupStatus{Name: g.GetName(), Wanted: int(g.GetWanted()), Ready: int(g.GetReady()), Waiting: int(g.GetWaiting()), Draining: int(g.GetDraining()), Lost: map[string]int{}, Diagnosis: toDiagnosis(g.GetDiagnosis()), Versions: orEmpty(g.GetVersions())}
		for cause, n := range g.GetLost() {
			status.Lost[cause] = int(n)
		}
		out.Groups = append(out.Groups, status)
	}
	return out
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
