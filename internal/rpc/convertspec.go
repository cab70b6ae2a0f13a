package rpc

import (
	"encoding/json"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func fromSpec(s *berth.TaskSpec) *pb.TaskSpec {
	out := &pb.TaskSpec{
		Name: s.Name, Image: s.Image, Entrypoint: s.Entrypoint, Args: s.Args, User: s.User, Infrastructure: s.Infrastructure,
		Cpu: string(s.CPU), Memory: string(s.Memory), Gpu: int32(s.GPU), EphemeralStorage: string(s.EphemeralStorage),
		Timeout: durationpb.New(s.Timeout), Retries: int32(s.Retries), Idempotent: s.Idempotent, Labels: s.Labels, Pull: string(s.Pull), Priority: int32(s.Priority), Where: s.Where,
	}
	out.Env = fromEnv(s.Env)
	for i := range s.Steps {
		step := &s.Steps[i]
		out.Steps = append(out.Steps, &pb.Step{Name: step.Name, Run: step.Run, Command: step.Command, Env: fromEnv(step.Env), IgnoreFailure: step.IgnoreFailure, Timeout: durationpb.New(step.Timeout)})
	}
	if c := s.Call; c != nil {
		out.Call = &pb.Call{Package: c.Package, Version: c.Version, Digest: c.Digest, Function: c.Function, Arguments: map[string][]byte{}, Secrets: c.Secrets}
		for name, value := range c.Arguments {
			out.Call.Arguments[name] = value
		}
	}
	return out
}

func fromEnv(vars []berth.EnvVar) []*pb.EnvVar {
	var out []*pb.EnvVar
	for _, e := range vars {
		out = append(out, &pb.EnvVar{Name: e.Name, Value: e.Value})
	}
	return out
}

func toEnv(vars []*pb.EnvVar) []berth.EnvVar {
	var out []berth.EnvVar
	for _, e := range vars {
		out = append(out, berth.EnvVar{Name: e.GetName(), Value: e.GetValue()})
	}
	return out
}

func toSpec(s *pb.TaskSpec) berth.TaskSpec {
	out := berth.TaskSpec{
		Name: s.GetName(), Image: s.GetImage(), Entrypoint: s.GetEntrypoint(), Args: s.GetArgs(), User: s.GetUser(), Infrastructure: s.GetInfrastructure(),
		CPU: berth.Quantity(s.GetCpu()), Memory: berth.Quantity(s.GetMemory()), GPU: int(s.GetGpu()), EphemeralStorage: berth.Quantity(s.GetEphemeralStorage()),
		Timeout: s.GetTimeout().AsDuration(), Retries: int(s.GetRetries()), Idempotent: s.GetIdempotent(), Labels: s.GetLabels(), Pull: berth.PullPolicy(s.GetPull()), Priority: int(s.GetPriority()), Where: s.GetWhere(),
	}
	out.Env = toEnv(s.GetEnv())
	for _, step := range s.GetSteps() {
		out.Steps = append(out.Steps, berth.Step{Name: step.GetName(), Run: step.GetRun(), Command: step.GetCommand(), Env: toEnv(step.GetEnv()), IgnoreFailure: step.GetIgnoreFailure(), Timeout: step.GetTimeout().AsDuration()})
	}
	if c := s.GetCall(); c != nil {
		out.Call = &berth.Call{Package: c.GetPackage(), Version: c.GetVersion(), Digest: c.GetDigest(), Function: c.GetFunction(), Arguments: map[string]json.RawMessage{}, Secrets: c.GetSecrets()}
		for name, value := range c.GetArguments() {
			out.Call.Arguments[name] = value
		}
	}
	return out
}

func fromSteps(steps []berth.StepStatus) []*pb.StepStatus {
	var out []*pb.StepStatus
	for i := range steps {
		s := &steps[i]
		status := &pb.StepStatus{Name: s.Name, State: string(s.State), Ignored: s.Ignored, Reason: s.Reason, StartedAt: fromTimePtr(s.StartedAt), FinishedAt: fromTimePtr(s.FinishedAt)}
		if s.ExitCode != nil {
			code := int32(*s.ExitCode)
			status.ExitCode = &code
		}
		out = append(out, status)
	}
	return out
}

func toSteps(steps []*pb.StepStatus) []berth.StepStatus {
	out := []berth.StepStatus{}
	for _, s := range steps {
		status := berth.StepStatus{Name: s.GetName(), State: berth.StepState(s.GetState()), Ignored: s.GetIgnored(), Reason: s.GetReason(), StartedAt: toTimePtr(s.GetStartedAt()), FinishedAt: toTimePtr(s.GetFinishedAt())}
		if s.ExitCode != nil {
			code := int(*s.ExitCode)
			status.ExitCode = &code
		}
		out = append(out, status)
	}
	return out
}
