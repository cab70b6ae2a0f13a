// Package rpc carries the Service interface over HTTP with Connect: a handler
// that serves one, and a client that is one. It translates and decides nothing.
package rpc

import (
	"context"
	"encoding/json"
	"iter"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
	"github.com/berth-run/berth/internal/rpc/berthv1/berthv1connect"
)

type server struct{ service berth.Service }

var _ berthv1connect.BerthServiceHandler = (*server)(nil)

func (s *server) Info(ctx context.Context, _ *connect.Request[pb.InfoRequest]) (*connect.Response[pb.InfoResponse], error) {
	info, err := s.service.Info(ctx)
	return connect.NewResponse(&pb.InfoResponse{Version: info.Version, Instance: info.Instance, DataDir: info.DataDir, Pid: int32(info.PID)}), toWire(err)
}

func (s *server) SubmitTask(ctx context.Context, r *connect.Request[pb.SubmitTaskRequest]) (*connect.Response[pb.SubmitTaskResponse], error) {
	task, err := s.service.SubmitTask(ctx, berth.Submission{Key: r.Msg.GetKey(), Spec: toSpec(r.Msg.GetSpec()), NoPreflight: r.Msg.GetNoPreflight()})
	return connect.NewResponse(&pb.SubmitTaskResponse{Task: fromTask(&task)}), toWire(err)
}

func (s *server) GetTask(ctx context.Context, r *connect.Request[pb.GetTaskRequest]) (*connect.Response[pb.GetTaskResponse], error) {
	task, err := s.service.Task(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.GetTaskResponse{Task: fromTask(&task)}), toWire(err)
}

func (s *server) ListTasks(ctx context.Context, r *connect.Request[pb.ListTasksRequest]) (*connect.Response[pb.ListTasksResponse], error) {
	query := berth.TaskQuery{Infrastructure: r.Msg.GetInfrastructure(), Name: r.Msg.GetName(), Labels: r.Msg.GetLabels(), Limit: int(r.Msg.GetLimit()), Owner: r.Msg.GetOwner(), After: r.Msg.GetAfter(), Array: r.Msg.GetArray()}
	for _, state := range r.Msg.GetStates() {
		query.States = append(query.States, berth.TaskState(state))
	}
	page, err := s.service.Tasks(ctx, query)
	out := &pb.ListTasksResponse{Next: page.Next}
	for i := range page.Tasks {
		out.Tasks = append(out.Tasks, fromTask(&page.Tasks[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

// relay sends what a sequence yields until it ends or fails.
func relay[T, M any](seq iter.Seq2[T, error], stream *connect.ServerStream[M], convert func(T) *M) error {
	for value, err := range seq {
		if err != nil {
			return toWire(err)
		}
		if err := stream.Send(convert(value)); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) WatchTask(ctx context.Context, r *connect.Request[pb.WatchTaskRequest], stream *connect.ServerStream[pb.WatchTaskResponse]) error {
	return relay(s.service.WatchTask(ctx, r.Msg.GetId()), stream, func(t berth.Task) *pb.WatchTaskResponse {
		return &pb.WatchTaskResponse{Task: fromTask(&t)}
	})
}

func (s *server) TaskEvents(ctx context.Context, r *connect.Request[pb.TaskEventsRequest], stream *connect.ServerStream[pb.TaskEventsResponse]) error {
	return relay(s.service.TaskEvents(ctx, r.Msg.GetId(), r.Msg.GetAfter(), r.Msg.GetFollow()), stream, func(e berth.Event) *pb.TaskEventsResponse {
		return &pb.TaskEventsResponse{Event: fromEvent(&e)}
	})
}

func (s *server) TaskLogs(ctx context.Context, r *connect.Request[pb.TaskLogsRequest], stream *connect.ServerStream[pb.TaskLogsResponse]) error {
	query := berth.LogQuery{
		Attempt: int(r.Msg.GetAttempt()), Offset: r.Msg.GetOffset(), Follow: r.Msg.GetFollow(), Tail: int(r.Msg.GetTail()),
		Since: toTime(r.Msg.GetSince()), Timestamps: r.Msg.GetTimestamps(), Step: int(r.Msg.GetStep()),
		Stream: berth.LogStream(r.Msg.GetStream()), Grep: r.Msg.GetGrep(),
	}
	return relay(s.service.TaskLogs(ctx, r.Msg.GetId(), query), stream, func(c berth.LogChunk) *pb.TaskLogsResponse {
		return &pb.TaskLogsResponse{Attempt: int32(c.Attempt), Data: c.Data, Offset: c.Offset, Gap: c.Gap, Stream: string(c.Stream)}
	})
}

func (s *server) GetTaskMetrics(ctx context.Context, r *connect.Request[pb.GetTaskMetricsRequest]) (*connect.Response[pb.GetTaskMetricsResponse], error) {
	metrics, err := s.service.TaskMetrics(ctx, r.Msg.GetId(), berth.MetricsQuery{Attempt: int(r.Msg.GetAttempt())})
	return connect.NewResponse(fromMetrics(&metrics)), toWire(err)
}

func (s *server) CancelTask(ctx context.Context, r *connect.Request[pb.CancelTaskRequest]) (*connect.Response[pb.CancelTaskResponse], error) {
	task, err := s.service.CancelTask(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.CancelTaskResponse{Task: fromTask(&task)}), toWire(err)
}

func (s *server) GetPackage(ctx context.Context, r *connect.Request[pb.GetPackageRequest]) (*connect.Response[pb.GetPackageResponse], error) {
	pkg, err := s.service.Package(ctx, r.Msg.GetInfrastructure(), r.Msg.GetName(), r.Msg.GetVersion())
	if err != nil {
		return nil, toWire(err)
	}
	data, err := json.Marshal(pkg)
	return connect.NewResponse(&pb.GetPackageResponse{Package: data}), toWire(err)
}

func (s *server) ListInfrastructures(ctx context.Context, _ *connect.Request[pb.ListInfrastructuresRequest]) (*connect.Response[pb.ListInfrastructuresResponse], error) {
	list, err := s.service.Infrastructures(ctx)
	out := &pb.ListInfrastructuresResponse{}
	for i := range list {
		out.Infrastructures = append(out.Infrastructures, fromInfrastructure(&list[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

func (s *server) CheckInfrastructure(ctx context.Context, r *connect.Request[pb.CheckInfrastructureRequest]) (*connect.Response[pb.CheckInfrastructureResponse], error) {
	check, err := s.service.CheckInfrastructure(ctx, r.Msg.GetName())
	return connect.NewResponse(fromCheck(&check)), toWire(err)
}

func (s *server) AddInfrastructure(ctx context.Context, r *connect.Request[pb.AddInfrastructureRequest]) (*connect.Response[pb.AddInfrastructureResponse], error) {
	err := s.service.AddInfrastructure(ctx, berth.InfrastructureSource{
		Name: r.Msg.GetName(), Kubeconfig: r.Msg.GetKubeconfig(), Content: berth.Secret(r.Msg.GetContent()), Context: r.Msg.GetContext(), Namespace: r.Msg.GetNamespace(),
		Kind: r.Msg.GetKind(), Address: r.Msg.GetAddress(),
	})
	return connect.NewResponse(&pb.AddInfrastructureResponse{}), toWire(err)
}

func (s *server) FormatDFS(ctx context.Context, r *connect.Request[pb.FormatDFSRequest]) (*connect.Response[pb.FormatDFSResponse], error) {
	v, err := s.service.FormatDFS(ctx, berth.DFSFormat{
		Infrastructure: r.Msg.GetInfrastructure(), Volume: r.Msg.GetVolume(), Storage: r.Msg.GetStorage(), Bucket: r.Msg.GetBucket(),
		AccessKey: r.Msg.GetAccessKey(), SecretKey: berth.Secret(r.Msg.GetSecretKey()), Capacity: berth.Quantity(r.Msg.GetCapacity()), Inodes: r.Msg.GetInodes(),
	})
	return connect.NewResponse(&pb.FormatDFSResponse{Infrastructure: v.Infrastructure, Name: v.Name, Address: v.Address, Storage: v.Storage, Bucket: v.Bucket}), toWire(err)
}

func (s *server) RemoveInfrastructure(ctx context.Context, r *connect.Request[pb.RemoveInfrastructureRequest]) (*connect.Response[pb.RemoveInfrastructureResponse], error) {
	err := s.service.RemoveInfrastructure(ctx, r.Msg.GetName(), r.Msg.GetForce())
	return connect.NewResponse(&pb.RemoveInfrastructureResponse{}), toWire(err)
}

func (s *server) CreateToken(ctx context.Context, r *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	token, err := s.service.CreateToken(ctx, berth.TokenRequest{
		Key: r.Msg.GetKey(), Name: r.Msg.GetName(), Role: berth.Role(r.Msg.GetRole()), Infrastructures: r.Msg.GetInfrastructures(), TTL: r.Msg.GetTtl().AsDuration(),
	})
	return connect.NewResponse(&pb.CreateTokenResponse{Token: fromToken(&token), Secret: token.Secret.Reveal()}), toWire(err)
}

func (s *server) ListTokens(ctx context.Context, _ *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
	tokens, err := s.service.Tokens(ctx)
	out := &pb.ListTokensResponse{}
	for i := range tokens {
		out.Tokens = append(out.Tokens, fromToken(&tokens[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

func (s *server) RevokeToken(ctx context.Context, r *connect.Request[pb.RevokeTokenRequest]) (*connect.Response[pb.RevokeTokenResponse], error) {
	err := s.service.RevokeToken(ctx, r.Msg.GetIdOrName())
	return connect.NewResponse(&pb.RevokeTokenResponse{}), toWire(err)
}
