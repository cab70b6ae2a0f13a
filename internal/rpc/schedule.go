package rpc

import (
	"context"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func fromSchedule(s *berth.Schedule) *pb.Schedule {
	out := &pb.Schedule{
		Name: s.Name, Cron: s.Cron, Timezone: s.Timezone, Overlap: string(s.Overlap), CatchUp: string(s.CatchUp), Command: s.Command, Owner: s.Owner, CreatedAt: fromTime(s.CreatedAt), Paused: s.Paused, Infrastructure: s.Infrastructure,
		From: fromTime(s.From), LastAt: fromTimePtr(s.LastAt), Last: s.Last, Waiting: fromTimePtr(s.Waiting), Note: s.Note, NextAt: fromTimePtr(s.NextAt),
	}
	if s.Task != nil {
		out.Task = fromSpec(s.Task)
	}
	if s.Run != nil {
		out.Run = fromRunSubmission(s.Run)
	}
	return out
}

func toSchedule(s *pb.Schedule) berth.Schedule {
	out := berth.Schedule{
		Name: s.GetName(), Cron: s.GetCron(), Timezone: s.GetTimezone(), Overlap: berth.Overlap(s.GetOverlap()), CatchUp: berth.CatchUp(s.GetCatchUp()), Command: append([]string{}, s.GetCommand()...), Owner: s.GetOwner(), CreatedAt: toTime(s.GetCreatedAt()), Paused: s.GetPaused(), Infrastructure: s.GetInfrastructure(),
		ScheduleState: berth.ScheduleState{From: toTime(s.GetFrom()), LastAt: toTimePtr(s.GetLastAt()), Last: s.Last, Waiting: toTimePtr(s.GetWaiting()), Note: s.Note}, NextAt: toTimePtr(s.GetNextAt()),
	}
	if s.GetTask() != nil {
		spec := toSpec(s.GetTask())
		out.Task = &spec
	}
	if s.GetRun() != nil {
		run := toRunSubmission(s.GetRun())
		out.Run = &run
	}
	return out
}

func (s *server) CreateSchedule(ctx context.Context, r *connect.Request[pb.CreateScheduleRequest]) (*connect.Response[pb.CreateScheduleResponse], error) {
	schedule, err := s.service.CreateSchedule(ctx, toSchedule(r.Msg.GetSchedule()))
	return connect.NewResponse(&pb.CreateScheduleResponse{Schedule: fromSchedule(&schedule)}), toWire(err)
}

func (s *server) ListSchedules(ctx context.Context, _ *connect.Request[pb.ListSchedulesRequest]) (*connect.Response[pb.ListSchedulesResponse], error) {
	list, err := s.service.Schedules(ctx)
	out := &pb.ListSchedulesResponse{}
	for i := range list {
		out.Schedules = append(out.Schedules, fromSchedule(&list[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

func (s *server) PauseSchedule(ctx context.Context, r *connect.Request[pb.PauseScheduleRequest]) (*connect.Response[pb.PauseScheduleResponse], error) {
	schedule, err := s.service.PauseSchedule(ctx, r.Msg.GetName(), r.Msg.GetPaused())
	return connect.NewResponse(&pb.PauseScheduleResponse{Schedule: fromSchedule(&schedule)}), toWire(err)
}

func (s *server) DeleteSchedule(ctx context.Context, r *connect.Request[pb.DeleteScheduleRequest]) (*connect.Response[pb.DeleteScheduleResponse], error) {
	return connect.NewResponse(&pb.DeleteScheduleResponse{}), toWire(s.service.DeleteSchedule(ctx, r.Msg.GetName()))
}

func (c *Client) CreateSchedule(ctx context.Context, s berth.Schedule) (berth.Schedule, error) {
	return call(ctx, c.rpc.CreateSchedule, &pb.CreateScheduleRequest{Schedule: fromSchedule(&s)}, func(m *pb.CreateScheduleResponse) berth.Schedule { return toSchedule(m.GetSchedule()) })
}

func (c *Client) Schedules(ctx context.Context) ([]berth.Schedule, error) {
	return call(ctx, c.rpc.ListSchedules, &pb.ListSchedulesRequest{}, func(m *pb.ListSchedulesResponse) []berth.Schedule {
		list := []berth.Schedule{}
		for _, s := range m.GetSchedules() {
			list = append(list, toSchedule(s))
		}
		return list
	})
}

func (c *Client) PauseSchedule(ctx context.Context, name string, paused bool) (berth.Schedule, error) {
	return call(ctx, c.rpc.PauseSchedule, &pb.PauseScheduleRequest{Name: name, Paused: paused}, func(m *pb.PauseScheduleResponse) berth.Schedule { return toSchedule(m.GetSchedule()) })
}

func (c *Client) DeleteSchedule(ctx context.Context, name string) error {
	_, err := call(ctx, c.rpc.DeleteSchedule, &pb.DeleteScheduleRequest{Name: name}, func(*pb.DeleteScheduleResponse) struct{} { return struct{}{} })
	return err
}

// CreateSchedule is made again after a server went away: one that was made by
// then is told as there already.
func (r *Resuming) CreateSchedule(ctx context.Context, schedule berth.Schedule) (berth.Schedule, error) {
	return do(ctx, r, func(s berth.Service) (berth.Schedule, error) { return s.CreateSchedule(ctx, schedule) })
}

func (r *Resuming) Schedules(ctx context.Context) ([]berth.Schedule, error) {
	return do(ctx, r, func(s berth.Service) ([]berth.Schedule, error) { return s.Schedules(ctx) })
}

func (r *Resuming) PauseSchedule(ctx context.Context, name string, paused bool) (berth.Schedule, error) {
	return do(ctx, r, func(s berth.Service) (berth.Schedule, error) { return s.PauseSchedule(ctx, name, paused) })
}

func (r *Resuming) DeleteSchedule(ctx context.Context, name string) error {
	return tell(ctx, r, func(s berth.Service) error { return s.DeleteSchedule(ctx, name) })
}
