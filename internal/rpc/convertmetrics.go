package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func fromMetrics(m *berth.TaskMetrics) *pb.GetTaskMetricsResponse {
	out := &pb.GetTaskMetricsResponse{
		TaskId: m.TaskID, State: string(m.State), Attempt: int32(m.Attempt), StartedAt: fromTimePtr(m.StartedAt), EndedAt: fromTimePtr(m.EndedAt),
		Source: (*string)(m.Source), SampleInterval: durationpb.New(time.Duration(m.Interval * float64(time.Second))), Advice: m.Advice, Note: m.Note,
		Cpu:    &pb.CPUUse{Seconds: m.CPU.Seconds, Mean: m.CPU.Mean, Peak: m.CPU.Peak, Request: m.CPU.Request, Limit: m.CPU.Limit, ThrottledSeconds: m.CPU.ThrottledSeconds},
		Memory: &pb.MemoryUse{MeanBytes: m.Memory.Mean, PeakBytes: m.Memory.Peak, WorkingSetPeakBytes: m.Memory.WorkingSet, RequestBytes: m.Memory.Request, LimitBytes: m.Memory.Limit},
	}
	for _, s := range m.Samples {
		out.Samples = append(out.Samples, &pb.Sample{At: fromTime(s.At), CpuSeconds: s.CPUSeconds, MemoryBytes: s.MemoryBytes})
	}
	return out
}

func toMetrics(m *pb.GetTaskMetricsResponse) berth.TaskMetrics {
	out := berth.TaskMetrics{
		TaskID: m.GetTaskId(), State: berth.TaskState(m.GetState()), Attempt: int(m.GetAttempt()), StartedAt: toTimePtr(m.GetStartedAt()), EndedAt: toTimePtr(m.GetEndedAt()),
		Source: (*berth.UsageSource)(m.Source), Interval: m.GetSampleInterval().AsDuration().Seconds(), Advice: append([]string{}, m.GetAdvice()...), Note: m.Note,
		Samples: []berth.Sample{},
	}
	if c := m.GetCpu(); c != nil {
		out.CPU = berth.CPUUse{Seconds: c.Seconds, Mean: c.Mean, Peak: c.Peak, Request: c.Request, Limit: c.Limit, ThrottledSeconds: c.ThrottledSeconds}
	}
	if c := m.GetMemory(); c != nil {
		out.Memory = berth.MemoryUse{Mean: c.MeanBytes, Peak: c.PeakBytes, WorkingSet: c.WorkingSetPeakBytes, Request: c.RequestBytes, Limit: c.LimitBytes}
	}
	for _, s := range m.GetSamples() {
		out.Samples = append(out.Samples, berth.Sample{At: toTime(s.GetAt()), CPUSeconds: s.GetCpuSeconds(), MemoryBytes: s.GetMemoryBytes()})
	}
	return out
}
