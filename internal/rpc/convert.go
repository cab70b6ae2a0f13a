package rpc

import (
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func toTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func toTimePtr(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

func fromTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func fromTimePtr(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return fromTime(*t)
}

func fromDiagnosis(d *berth.Diagnosis) *pb.Diagnosis {
	if d == nil {
		return nil
	}
	out := &pb.Diagnosis{Cause: string(d.Cause), Summary: d.Summary, Remedy: d.Remedy.Text, RemedyBy: string(d.Remedy.By), Since: fromTime(d.Since)}
	for _, e := range d.Evidence {
		out.Evidence = append(out.Evidence, &pb.Evidence{Source: e.Source, Text: e.Text})
	}
	return out
}

func toDiagnosis(d *pb.Diagnosis) *berth.Diagnosis {
	if d == nil {
		return nil
	}
	out := &berth.Diagnosis{Cause: berth.Cause(d.GetCause()), Summary: d.GetSummary(), Evidence: []berth.Evidence{}, Remedy: berth.Remedy{Text: d.GetRemedy(), By: berth.RemedyBy(d.GetRemedyBy())}, Since: toTime(d.GetSince())}
	for _, e := range d.GetEvidence() {
		out.Evidence = append(out.Evidence, berth.Evidence{Source: e.GetSource(), Text: e.GetText()})
	}
	return out
}

func fromTask(t *berth.Task) *pb.Task {
	out := &pb.Task{
		Id: t.ID, State: string(t.State), Infrastructure: t.Infrastructure, Attempt: int32(t.Attempt), Reason: t.Reason, Result: t.Result,
		Diagnosis: fromDiagnosis(t.Diagnosis), CreatedAt: fromTime(t.CreatedAt), StartedAt: fromTimePtr(t.StartedAt), FinishedAt: fromTimePtr(t.FinishedAt),
		Usage: &pb.Usage{CpuSeconds: t.Usage.CPUSeconds, MemoryPeakBytes: t.Usage.MemoryPeakBytes, Source: (*string)(t.Usage.Source), Network: toNetworkUse(t.Usage.Network)},
		Owner: t.Owner, Pod: t.Pod, Node: t.Node, CancelledAt: fromTimePtr(t.CancelledAt), Stale: t.Stale, Spec: fromSpec(&t.Spec), Steps: fromSteps(t.Steps), Array: fromItem(t.Array), Orphan: t.Orphan,
	}
	if t.ExitCode != nil {
		code := int32(*t.ExitCode)
		out.ExitCode = &code
	}
	return out
}

func toTask(t *pb.Task) berth.Task {
	out := berth.Task{
		ID: t.GetId(), State: berth.TaskState(t.GetState()), Infrastructure: t.GetInfrastructure(), Attempt: int(t.GetAttempt()), Reason: t.Reason,
		Diagnosis: toDiagnosis(t.GetDiagnosis()), CreatedAt: toTime(t.GetCreatedAt()), StartedAt: toTimePtr(t.GetStartedAt()), FinishedAt: toTimePtr(t.GetFinishedAt()),
		Owner: t.GetOwner(), Pod: t.Pod, Node: t.Node, CancelledAt: toTimePtr(t.GetCancelledAt()), Stale: t.Stale, Spec: toSpec(t.GetSpec()), Steps: toSteps(t.GetSteps()), Array: toItem(t.GetArray()), Orphan: t.GetOrphan(),
	}
	if u := t.GetUsage(); u != nil {
		out.Usage = berth.Usage{CPUSeconds: u.CpuSeconds, MemoryPeakBytes: u.MemoryPeakBytes, Source: (*berth.UsageSource)(u.Source), Network: fromNetworkUse(u.GetNetwork())}
	}
	out.Image = out.Spec.Image
	if out.Spec.Name != "" {
		out.Name = &out.Spec.Name
	}
	if len(t.GetResult()) > 0 {
		out.Result = json.RawMessage(t.GetResult())
	}
	if t.ExitCode != nil {
		code := int(*t.ExitCode)
		out.ExitCode = &code
	}
	return out
}

func fromEvent(e *berth.Event) *pb.Event {
	return &pb.Event{Seq: e.Seq, TaskId: e.TaskID, Attempt: int32(e.Attempt), Type: string(e.Type), Message: e.Message, At: fromTime(e.At)}
}

func toEvent(e *pb.Event) berth.Event {
	return berth.Event{Seq: e.GetSeq(), TaskID: e.GetTaskId(), Attempt: int(e.GetAttempt()), Type: berth.EventType(e.GetType()), Message: e.GetMessage(), At: toTime(e.GetAt())}
}

func fromInfrastructure(i *berth.Infrastructure) *pb.Infrastructure {
	return &pb.Infrastructure{
		Name: i.Name, Kind: i.Kind, Address: i.Address, Namespace: i.Namespace, State: string(i.State), Reason: i.Reason,
		LastSeenAt: fromTimePtr(i.LastSeenAt), ServerVersion: i.ServerVersion, Default: i.Default, LiveTasks: int32(i.LiveTasks), QueuedTasks: int32(i.QueuedTasks), Holder: i.Holder,
	}
}

func toInfrastructure(i *pb.Infrastructure) berth.Infrastructure {
	return berth.Infrastructure{
		Name: i.GetName(), Kind: i.GetKind(), Address: i.GetAddress(), Namespace: i.GetNamespace(), State: berth.InfrastructureState(i.GetState()), Reason: i.Reason,
		LastSeenAt: toTimePtr(i.GetLastSeenAt()), ServerVersion: i.ServerVersion, Default: i.GetDefault(), LiveTasks: int(i.GetLiveTasks()), QueuedTasks: int(i.GetQueuedTasks()), Holder: i.Holder,
	}
}

func fromCheck(c *berth.InfrastructureCheck) *pb.CheckInfrastructureResponse {
	out := &pb.CheckInfrastructureResponse{Name: c.Name, Namespace: c.Namespace, Address: c.Address, ServerVersion: c.ServerVersion, Latency: durationpb.New(c.Latency), Ok: c.OK}
	for _, r := range c.Rows {
		out.Rows = append(out.Rows, &pb.CheckRow{Group: string(r.Group), What: r.What, Status: string(r.Status), Detail: r.Detail, Remedy: r.Remedy})
	}
	return out
}

func toCheck(c *pb.CheckInfrastructureResponse) berth.InfrastructureCheck {
	out := berth.InfrastructureCheck{Name: c.GetName(), Namespace: c.GetNamespace(), Address: c.GetAddress(), ServerVersion: c.GetServerVersion(), Latency: c.GetLatency().AsDuration(), OK: c.GetOk(), Rows: []berth.CheckRow{}}
	for _, r := range c.GetRows() {
		out.Rows = append(out.Rows, berth.CheckRow{Group: berth.CheckGroup(r.GetGroup()), What: r.GetWhat(), Status: berth.CheckStatus(r.GetStatus()), Detail: r.GetDetail(), Remedy: r.GetRemedy()})
	}
	return out
}

func fromToken(t *berth.Token) *pb.Token {
	return &pb.Token{
		Id: t.ID, Name: t.Name, Role: string(t.Role), Infrastructures: t.Infrastructures, CreatedAt: fromTime(t.CreatedAt),
		ExpiresAt: fromTimePtr(t.ExpiresAt), LastUsedAt: fromTimePtr(t.LastUsedAt), RevokedAt: fromTimePtr(t.RevokedAt),
	}
}

func toToken(t *pb.Token) berth.Token {
	return berth.Token{
		ID: t.GetId(), Name: t.GetName(), Role: berth.Role(t.GetRole()), Infrastructures: append([]string{}, t.GetInfrastructures()...), CreatedAt: toTime(t.GetCreatedAt()),
		ExpiresAt: toTimePtr(t.GetExpiresAt()), LastUsedAt: toTimePtr(t.GetLastUsedAt()), RevokedAt: toTimePtr(t.GetRevokedAt()),
	}
}
