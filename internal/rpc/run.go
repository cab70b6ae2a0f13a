package rpc

import (
	"context"
	"encoding/json"
	"iter"

	"connectrpc.com/connect"
	"github.com/rs/xid"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func fromRun(r *berth.Run) *pb.Run {
	out := &pb.Run{
		Id: r.ID, Workflow: r.Workflow, State: string(r.State), Reason: r.Reason, Infrastructure: r.Infrastructure, Arguments: fromValues(r.Arguments), OnError: string(r.OnError),
		Limits: fromLimits(r.Limits), Calls: map[string]int32{}, Result: r.Result, Resumed: int32(r.Resumed), ResumedAt: fromTimePtr(r.ResumedAt), Diverged: r.Diverged,
		CreatedAt: fromTime(r.CreatedAt), FinishedAt: fromTimePtr(r.FinishedAt), CancelledAt: fromTimePtr(r.CancelledAt), Owner: r.Owner, On: r.On,
	}
	for _, p := range r.Packages {
		out.Packages = append(out.Packages, &pb.RunPackage{Name: p.Name, Version: p.Version, Digest: p.Digest})
	}
	for state, n := range r.Calls {
		out.Calls[string(state)] = int32(n)
	}
	if e := r.Error; e != nil {
		out.Error = &pb.RunError{Message: e.Message, Call: fromFailure(e.Call)}
		for _, f := range e.Stack {
			out.Error.Stack = append(out.Error.Stack, &pb.Frame{Function: f.Function, File: f.File, Line: int32(f.Line), Column: int32(f.Column)})
		}
	}
	return out
}

func toRun(r *pb.Run) berth.Run {
	out := berth.Run{
		ID: r.GetId(), Workflow: r.GetWorkflow(), State: berth.RunState(r.GetState()), Reason: r.Reason, Infrastructure: r.GetInfrastructure(), Arguments: toValues(r.GetArguments()), OnError: berth.OnError(r.GetOnError()),
		Limits: toLimits(r.GetLimits()), Packages: []berth.RunPackage{}, Calls: map[berth.CallState]int{}, Result: toValue(r.GetResult()), Resumed: int(r.GetResumed()), ResumedAt: toTimePtr(r.GetResumedAt()), Diverged: r.Diverged,
		CreatedAt: toTime(r.GetCreatedAt()), FinishedAt: toTimePtr(r.GetFinishedAt()), CancelledAt: toTimePtr(r.GetCancelledAt()), Owner: r.GetOwner(), On: r.GetOn(),
	}
	for _, p := range r.GetPackages() {
		out.Packages = append(out.Packages, berth.RunPackage{Name: p.GetName(), Version: p.GetVersion(), Digest: p.GetDigest()})
	}
	for state, n := range r.GetCalls() {
		out.Calls[berth.CallState(state)] = int(n)
	}
	if e := r.GetError(); e != nil {
		out.Error = &berth.RunError{Message: e.GetMessage(), Stack: []berth.Frame{}, Call: toFailure(e.GetCall())}
		for _, f := range e.GetStack() {
			out.Error.Stack = append(out.Error.Stack, berth.Frame{Function: f.GetFunction(), File: f.GetFile(), Line: int(f.GetLine()), Column: int(f.GetColumn())})
		}
	}
	return out
}

func fromRunCall(c *berth.RunCall) *pb.RunCall {
	out := &pb.RunCall{
		Seq: c.Seq, Key: c.Key, Kind: c.Kind, Name: c.Name, Label: c.Label, At: c.At, State: string(c.State), Task: c.Task, Infrastructure: c.Infrastructure, Reason: c.Reason, Cached: c.Cached,
		BeganAt: fromTime(c.BeganAt), EndedAt: fromTimePtr(c.EndedAt), Needs: c.Needs, Result: c.Result, Failure: fromFailure(c.Failure), Digest: c.Digest, Generation: int32(c.Generation), Handled: c.Handled,
	}
	if c.TaskState != nil {
		state := string(*c.TaskState)
		out.TaskState = &state
	}
	if c.Cause != nil {
		cause := string(*c.Cause)
		out.Cause = &cause
	}
	return out
}

func toRunCall(c *pb.RunCall) berth.RunCall {
	out := berth.RunCall{
		Seq: c.GetSeq(), Key: c.GetKey(), Kind: c.GetKind(), Name: c.GetName(), Label: c.Label, At: c.GetAt(), State: berth.CallState(c.GetState()), Task: c.Task, Infrastructure: c.Infrastructure, Reason: c.Reason, Cached: c.Cached,
		BeganAt: toTime(c.GetBeganAt()), EndedAt: toTimePtr(c.GetEndedAt()), Needs: append([]string{}, c.GetNeeds()...), Result: toValue(c.GetResult()), Failure: toFailure(c.GetFailure()), Digest: c.GetDigest(), Generation: int(c.GetGeneration()), Handled: c.GetHandled(),
	}
	if c.TaskState != nil {
		state := berth.TaskState(c.GetTaskState())
		out.TaskState = &state
	}
	if c.Cause != nil {
		cause := berth.Cause(c.GetCause())
		out.Cause = &cause
	}
	return out
}

func fromFailure(f *berth.CallFailure) *pb.CallFailure {
	if f == nil {
		return nil
	}
	out := &pb.CallFailure{Call: f.Call, Name: f.Name, Task: f.Task, Message: f.Message, Diagnosis: fromDiagnosis(f.Diagnosis)}
	if f.ExitCode != nil {
		code := int32(*f.ExitCode)
		out.ExitCode = &code
	}
	return out
}

func toFailure(f *pb.CallFailure) *berth.CallFailure {
	if f == nil {
		return nil
	}
	out := &berth.CallFailure{Call: f.GetCall(), Name: f.GetName(), Task: f.GetTask(), Message: f.GetMessage(), Diagnosis: toDiagnosis(f.GetDiagnosis())}
	if f.ExitCode != nil {
		code := int(f.GetExitCode())
		out.ExitCode = &code
	}
	return out
}

func fromLimits(l berth.RunLimits) *pb.RunLimits {
	out := &pb.RunLimits{Steps: l.Steps}
	if l.Timeout != 0 {
		out.Timeout = durationpb.New(l.Timeout)
	}
	return out
}

func toLimits(l *pb.RunLimits) berth.RunLimits {
	return berth.RunLimits{Steps: l.GetSteps(), Timeout: l.GetTimeout().AsDuration()}
}

func fromValues(values map[string]json.RawMessage) map[string][]byte {
	out := make(map[string][]byte, len(values))
	for name, value := range values {
		out[name] = value
	}
	return out
}

func toValues(values map[string][]byte) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(values))
	for name, value := range values {
		out[name] = value
	}
	return out
}

// toValue is a JSON value, nil where there is none.
func toValue(value []byte) json.RawMessage {
	if len(value) == 0 {
		return nil
	}
	return value
}

func fromSource(s *berth.WorkflowSource) *pb.WorkflowSource {
	if s == nil {
		return nil
	}
	return &pb.WorkflowSource{Main: s.Main, Files: s.Files}
}

func toSource(s *pb.WorkflowSource) *berth.WorkflowSource {
	if s == nil {
		return nil
	}
	return &berth.WorkflowSource{Main: s.GetMain(), Files: s.GetFiles()}
}

func toRunSubmission(r *pb.StartRunRequest) berth.RunSubmission {
	submission := berth.RunSubmission{
		Key: r.GetKey(), Arguments: toValues(r.GetArguments()), On: r.GetOn(), Infrastructure: r.GetInfrastructure(), OnError: berth.OnError(r.GetOnError()), Limits: toLimits(r.GetLimits()),
	}
	if source := toSource(r.GetSource()); source != nil {
		submission.Source = *source
	}
	return submission
}

func fromRunSubmission(s *berth.RunSubmission) *pb.StartRunRequest {
	return &pb.StartRunRequest{Key: s.Key, Source: fromSource(&s.Source), Arguments: fromValues(s.Arguments), On: s.On, Infrastructure: s.Infrastructure, OnError: string(s.OnError), Limits: fromLimits(s.Limits)}
}

func (s *server) StartRun(ctx context.Context, r *connect.Request[pb.StartRunRequest]) (*connect.Response[pb.StartRunResponse], error) {
	run, err := s.service.StartRun(ctx, toRunSubmission(r.Msg))
	return connect.NewResponse(&pb.StartRunResponse{Run: fromRun(&run)}), toWire(err)
}

func (s *server) GetRun(ctx context.Context, r *connect.Request[pb.GetRunRequest]) (*connect.Response[pb.GetRunResponse], error) {
	run, err := s.service.Run(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.GetRunResponse{Run: fromRun(&run)}), toWire(err)
}

func (s *server) ListRuns(ctx context.Context, r *connect.Request[pb.ListRunsRequest]) (*connect.Response[pb.ListRunsResponse], error) {
	page, err := s.service.Runs(ctx, berth.RunQuery{State: berth.RunState(r.Msg.GetState()), Owner: r.Msg.GetOwner(), Limit: int(r.Msg.GetLimit()), After: r.Msg.GetAfter()})
	out := &pb.ListRunsResponse{Next: page.Next}
	for i := range page.Runs {
		out.Runs = append(out.Runs, fromRun(&page.Runs[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

func (s *server) WatchRun(ctx context.Context, r *connect.Request[pb.WatchRunRequest], stream *connect.ServerStream[pb.WatchRunResponse]) error {
	return relay(s.service.WatchRun(ctx, r.Msg.GetId()), stream, func(r berth.Run) *pb.WatchRunResponse { return &pb.WatchRunResponse{Run: fromRun(&r)} })
}

func (s *server) RunCalls(ctx context.Context, r *connect.Request[pb.RunCallsRequest], stream *connect.ServerStream[pb.RunCallsResponse]) error {
	return relay(s.service.RunCalls(ctx, r.Msg.GetId(), r.Msg.GetFollow()), stream, func(c berth.RunCall) *pb.RunCallsResponse {
		return &pb.RunCallsResponse{Call: fromRunCall(&c)}
	})
}

func (s *server) CancelRun(ctx context.Context, r *connect.Request[pb.CancelRunRequest]) (*connect.Response[pb.CancelRunResponse], error) {
	run, err := s.service.CancelRun(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.CancelRunResponse{Run: fromRun(&run)}), toWire(err)
}

func (s *server) ResumeRun(ctx context.Context, r *connect.Request[pb.ResumeRunRequest]) (*connect.Response[pb.ResumeRunResponse], error) {
	run, err := s.service.ResumeRun(ctx, berth.RunResumption{Key: r.Msg.GetKey(), ID: r.Msg.GetId(), Source: toSource(r.Msg.GetSource())})
	return connect.NewResponse(&pb.ResumeRunResponse{Run: fromRun(&run)}), toWire(err)
}

func (c *Client) StartRun(ctx context.Context, s berth.RunSubmission) (berth.Run, error) {
	return call(ctx, c.rpc.StartRun, fromRunSubmission(&s), func(m *pb.StartRunResponse) berth.Run { return toRun(m.GetRun()) })
}

func (c *Client) Run(ctx context.Context, id string) (berth.Run, error) {
	return call(ctx, c.rpc.GetRun, &pb.GetRunRequest{Id: id}, func(m *pb.GetRunResponse) berth.Run { return toRun(m.GetRun()) })
}

func (c *Client) Runs(ctx context.Context, q berth.RunQuery) (berth.RunPage, error) {
	request := &pb.ListRunsRequest{State: string(q.State), Owner: q.Owner, Limit: int32(q.Limit), After: q.After}
	return call(ctx, c.rpc.ListRuns, request, func(m *pb.ListRunsResponse) berth.RunPage {
		page := berth.RunPage{Runs: []berth.Run{}, Next: m.GetNext()}
		for _, r := range m.GetRuns() {
			page.Runs = append(page.Runs, toRun(r))
		}
		return page
	})
}

func (c *Client) WatchRun(ctx context.Context, id string) iter.Seq2[berth.Run, error] {
	return receive(ctx, c.rpc.WatchRun, &pb.WatchRunRequest{Id: id}, func(m *pb.WatchRunResponse) berth.Run { return toRun(m.GetRun()) })
}

func (c *Client) RunCalls(ctx context.Context, id string, follow bool) iter.Seq2[berth.RunCall, error] {
	return receive(ctx, c.rpc.RunCalls, &pb.RunCallsRequest{Id: id, Follow: follow}, func(m *pb.RunCallsResponse) berth.RunCall { return toRunCall(m.GetCall()) })
}

func (c *Client) CancelRun(ctx context.Context, id string) (berth.Run, error) {
	return call(ctx, c.rpc.CancelRun, &pb.CancelRunRequest{Id: id}, func(m *pb.CancelRunResponse) berth.Run { return toRun(m.GetRun()) })
}

func (c *Client) ResumeRun(ctx context.Context, r berth.RunResumption) (berth.Run, error) {
	return call(ctx, c.rpc.ResumeRun, &pb.ResumeRunRequest{Key: r.Key, Id: r.ID, Source: fromSource(r.Source)}, func(m *pb.ResumeRunResponse) berth.Run { return toRun(m.GetRun()) })
}

func (r *Resuming) StartRun(ctx context.Context, submission berth.RunSubmission) (berth.Run, error) {
	if submission.Key == "" {
		submission.Key = xid.New().String() // here, so that a second try is the same submission
	}
	return do(ctx, r, func(s berth.Service) (berth.Run, error) { return s.StartRun(ctx, submission) })
}

func (r *Resuming) Run(ctx context.Context, id string) (berth.Run, error) {
	return do(ctx, r, func(s berth.Service) (berth.Run, error) { return s.Run(ctx, id) })
}

func (r *Resuming) Runs(ctx context.Context, q berth.RunQuery) (berth.RunPage, error) {
	return do(ctx, r, func(s berth.Service) (berth.RunPage, error) { return s.Runs(ctx, q) })
}

func (r *Resuming) WatchRun(ctx context.Context, id string) iter.Seq2[berth.Run, error] {
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[berth.Run, error] { return s.WatchRun(ctx, id) }, func(berth.Run) {})
}

// RunCalls may yield calls again after a server went away, as they are then.
func (r *Resuming) RunCalls(ctx context.Context, id string, follow bool) iter.Seq2[berth.RunCall, error] {
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[berth.RunCall, error] { return s.RunCalls(ctx, id, follow) }, func(berth.RunCall) {})
}

func (r *Resuming) CancelRun(ctx context.Context, id string) (berth.Run, error) {
	return do(ctx, r, func(s berth.Service) (berth.Run, error) { return s.CancelRun(ctx, id) })
}

func (r *Resuming) ResumeRun(ctx context.Context, resumption berth.RunResumption) (berth.Run, error) {
	if resumption.Key == "" {
		resumption.Key = xid.New().String()
	}
	return do(ctx, r, func(s berth.Service) (berth.Run, error) { return s.ResumeRun(ctx, resumption) })
}
