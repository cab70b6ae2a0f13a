package rpc

import (
	"context"
	"iter"
	"net"

	"connectrpc.com/connect"
	"github.com/rs/xid"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

func (s *server) CreateCluster(ctx context.Context, r *connect.Request[pb.CreateClusterRequest]) (*connect.Response[pb.CreateClusterResponse], error) {
	cluster, err := s.service.CreateCluster(ctx, berth.ClusterSubmission{Key: r.Msg.GetKey(), Spec: toClusterSpec(r.Msg.GetSpec()), Reuse: r.Msg.GetReuse()})
	return connect.NewResponse(&pb.CreateClusterResponse{Cluster: fromCluster(&cluster)}), toWire(err)
}

func (s *server) GetCluster(ctx context.Context, r *connect.Request[pb.GetClusterRequest]) (*connect.Response[pb.GetClusterResponse], error) {
	cluster, err := s.service.Cluster(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.GetClusterResponse{Cluster: fromCluster(&cluster)}), toWire(err)
}

func (s *server) ListClusters(ctx context.Context, r *connect.Request[pb.ListClustersRequest]) (*connect.Response[pb.ListClustersResponse], error) {
	page, err := s.service.Clusters(ctx, berth.ClusterQuery{All: r.Msg.GetAll(), Infrastructure: r.Msg.GetInfrastructure(), Limit: int(r.Msg.GetLimit()), After: r.Msg.GetAfter()})
	out := &pb.ListClustersResponse{Next: page.Next}
	for i := range page.Clusters {
		out.Clusters = append(out.Clusters, fromCluster(&page.Clusters[i]))
	}
	return connect.NewResponse(out), toWire(err)
}

func (s *server) WatchCluster(ctx context.Context, r *connect.Request[pb.WatchClusterRequest], stream *connect.ServerStream[pb.WatchClusterResponse]) error {
	return relay(s.service.WatchCluster(ctx, r.Msg.GetId()), stream, func(c berth.Cluster) *pb.WatchClusterResponse {
		return &pb.WatchClusterResponse{Cluster: fromCluster(&c)}
	})
}

func (s *server) ScaleCluster(ctx context.Context, r *connect.Request[pb.ScaleClusterRequest]) (*connect.Response[pb.ScaleClusterResponse], error) {
	cluster, err := s.service.ScaleCluster(ctx, berth.ClusterScale{
		ID: r.Msg.GetId(), Group: r.Msg.GetGroup(), Count: int(r.Msg.GetCount()), Adaptive: r.Msg.GetAdaptive(), Min: int(r.Msg.GetMin()), Max: int(r.Msg.GetMax()),
	})
	return connect.NewResponse(&pb.ScaleClusterResponse{Cluster: fromCluster(&cluster)}), toWire(err)
}

func (s *server) DeleteCluster(ctx context.Context, r *connect.Request[pb.DeleteClusterRequest]) (*connect.Response[pb.DeleteClusterResponse], error) {
	cluster, err := s.service.DeleteCluster(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.DeleteClusterResponse{Cluster: fromCluster(&cluster)}), toWire(err)
}

func (s *server) GetClusterAccess(ctx context.Context, r *connect.Request[pb.GetClusterAccessRequest]) (*connect.Response[pb.GetClusterAccessResponse], error) {
	access, err := s.service.ClusterAccess(ctx, r.Msg.GetId())
	return connect.NewResponse(&pb.GetClusterAccessResponse{Ca: access.CA, Certificate: access.Certificate, Key: access.Key.Reveal()}), toWire(err)
}

func (c *Client) CreateCluster(ctx context.Context, s berth.ClusterSubmission) (berth.Cluster, error) {
	return call(ctx, c.rpc.CreateCluster, &pb.CreateClusterRequest{Key: s.Key, Spec: fromClusterSpec(&s.Spec), Reuse: s.Reuse}, func(m *pb.CreateClusterResponse) berth.Cluster { return toCluster(m.GetCluster()) })
}

func (c *Client) Cluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	return call(ctx, c.rpc.GetCluster, &pb.GetClusterRequest{Id: idOrName}, func(m *pb.GetClusterResponse) berth.Cluster { return toCluster(m.GetCluster()) })
}

func (c *Client) Clusters(ctx context.Context, q berth.ClusterQuery) (berth.ClusterPage, error) {
	request := &pb.ListClustersRequest{All: q.All, Infrastructure: q.Infrastructure, Limit: int32(q.Limit), After: q.After}
	return call(ctx, c.rpc.ListClusters, request, func(m *pb.ListClustersResponse) berth.ClusterPage {
		page := berth.ClusterPage{Clusters: []berth.Cluster{}, Next: m.GetNext()}
		for _, cluster := range m.GetClusters() {
			page.Clusters = append(page.Clusters, toCluster(cluster))
		}
		return page
	})
}

func (c *Client) WatchCluster(ctx context.Context, idOrName string) iter.Seq2[berth.Cluster, error] {
	return receive(ctx, c.rpc.WatchCluster, &pb.WatchClusterRequest{Id: idOrName}, func(m *pb.WatchClusterResponse) berth.Cluster { return toCluster(m.GetCluster()) })
}

func (c *Client) ScaleCluster(ctx context.Context, s berth.ClusterScale) (berth.Cluster, error) {
	request := &pb.ScaleClusterRequest{Id: s.ID, Group: s.Group, Count: narrow(s.Count), Adaptive: s.Adaptive, Min: narrow(s.Min), Max: narrow(s.Max)}
	return call(ctx, c.rpc.ScaleCluster, request, func(m *pb.ScaleClusterResponse) berth.Cluster { return toCluster(m.GetCluster()) })
}

func (c *Client) DeleteCluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	return call(ctx, c.rpc.DeleteCluster, &pb.DeleteClusterRequest{Id: idOrName}, func(m *pb.DeleteClusterResponse) berth.Cluster { return toCluster(m.GetCluster()) })
}

func (c *Client) ClusterAccess(ctx context.Context, idOrName string) (berth.ClusterAccess, error) {
	return call(ctx, c.rpc.GetClusterAccess, &pb.GetClusterAccessRequest{Id: idOrName}, func(m *pb.GetClusterAccessResponse) berth.ClusterAccess {
		return berth.ClusterAccess{CA: m.GetCa(), Certificate: m.GetCertificate(), Key: berth.Secret(m.GetKey())}
	})
}

func (r *Resuming) CreateCluster(ctx context.Context, submission berth.ClusterSubmission) (berth.Cluster, error) {
	if submission.Key == "" {
		submission.Key = xid.New().String() // here, so that a second try is the same submission
	}
	return do(ctx, r, func(s berth.Service) (berth.Cluster, error) { return s.CreateCluster(ctx, submission) })
}

func (r *Resuming) Cluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	return do(ctx, r, func(s berth.Service) (berth.Cluster, error) { return s.Cluster(ctx, idOrName) })
}

func (r *Resuming) Clusters(ctx context.Context, q berth.ClusterQuery) (berth.ClusterPage, error) {
	return do(ctx, r, func(s berth.Service) (berth.ClusterPage, error) { return s.Clusters(ctx, q) })
}

func (r *Resuming) WatchCluster(ctx context.Context, idOrName string) iter.Seq2[berth.Cluster, error] {
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[berth.Cluster, error] { return s.WatchCluster(ctx, idOrName) }, func(c berth.Cluster) { idOrName = c.ID })
}

func (r *Resuming) ScaleCluster(ctx context.Context, scale berth.ClusterScale) (berth.Cluster, error) {
	return do(ctx, r, func(s berth.Service) (berth.Cluster, error) { return s.ScaleCluster(ctx, scale) })
}

func (r *Resuming) DeleteCluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	return do(ctx, r, func(s berth.Service) (berth.Cluster, error) { return s.DeleteCluster(ctx, idOrName) })
}

func (r *Resuming) ClusterAccess(ctx context.Context, idOrName string) (berth.ClusterAccess, error) {
	return do(ctx, r, func(s berth.Service) (berth.ClusterAccess, error) { return s.ClusterAccess(ctx, idOrName) })
}

// DialCluster connects anew where the server goes away meanwhile; a connection
// that was made ends with its server.
func (r *Resuming) DialCluster(ctx context.Context, idOrName string, port berth.ClusterPort) (net.Conn, error) {
	return do(ctx, r, func(s berth.Service) (net.Conn, error) { return s.DialCluster(ctx, idOrName, port) })
}
