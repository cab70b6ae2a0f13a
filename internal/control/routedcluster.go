package control

import (
	"context"
	"iter"
	"net"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
)

// A compute cluster is kept where its infrastructure is reconciled.

func (r *routed) CreateCluster(ctx context.Context, s berth.ClusterSubmission) (berth.Cluster, error) {
	if err := s.Spec.Validate(); err != nil {
		return berth.Cluster{}, err
	}
	if s.Key == "" {
		s.Key = xid.New().String() // here, so that a second try is the same submission
	}
	caller := r.caller(ctx)
	if there, err := r.store.LiveCluster(ctx, caller.Name, s.Spec.Name); err == nil {
		return r.at(there.Cluster.Infrastructure).CreateCluster(ctx, s)
	}
	head := s.Spec.TaskSpec(s.Spec.Head, 0, berth.NewClusterID(xid.New().String()))
	entry, _, err := r.placed(ctx, caller, &head)
	if err != nil {
		return berth.Cluster{}, err
	}
	s.Spec.Infrastructure = entry.Name
	return r.at(entry.Name).CreateCluster(ctx, s)
}

// ofCluster returns the Service of a cluster, and its id.
func (r *routed) ofCluster(ctx context.Context, idOrName string) (berth.Service, string, error) {
	cluster, err := r.visibleCluster(ctx, idOrName)
	if err != nil {
		return nil, "", err
	}
	if _, known := r.entry(cluster.Infrastructure); !known || cluster.State.Terminal() {
		return r.Host, cluster.ID, nil
	}
	return r.at(cluster.Infrastructure), cluster.ID, nil
}

func (r *routed) Cluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	service, id, err := r.ofCluster(ctx, idOrName)
	if err != nil {
		return berth.Cluster{}, err
	}
	return service.Cluster(ctx, id)
}

func (r *routed) WatchCluster(ctx context.Context, idOrName string) iter.Seq2[berth.Cluster, error] {
	return func(yield func(berth.Cluster, error) bool) {
		service, id, err := r.ofCluster(ctx, idOrName)
		if err != nil {
			yield(berth.Cluster{}, err)
			return
		}
		service.WatchCluster(ctx, id)(yield)
	}
}

func (r *routed) ScaleCluster(ctx context.Context, s berth.ClusterScale) (berth.Cluster, error) {
	service, id, err := r.ofCluster(ctx, s.ID)
	if err != nil {
		return berth.Cluster{}, err
	}
	s.ID = id
	return service.ScaleCluster(ctx, s)
}

func (r *routed) DeleteCluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	service, id, err := r.ofCluster(ctx, idOrName)
	if err != nil {
		return berth.Cluster{}, err
	}
	return service.DeleteCluster(ctx, id)
}

func (r *routed) ClusterAccess(ctx context.Context, idOrName string) (berth.ClusterAccess, error) {
	service, id, err := r.ofCluster(ctx, idOrName)
	if err != nil {
		return berth.ClusterAccess{}, err
	}
	return service.ClusterAccess(ctx, id)
}

func (r *routed) DialCluster(ctx context.Context, idOrName string, port berth.ClusterPort) (net.Conn, error) {
	cluster, err := r.ownedCluster(ctx, idOrName, "connect to clusters")
	if err != nil {
		return nil, err
	}
	if conn := r.offered(ctx, &cluster, port); conn != nil { // whoever keeps the cluster
		return conn, nil
	}
	service, id, err := r.ofCluster(ctx, cluster.ID)
	if err != nil {
		return nil, err
	}
	return service.DialCluster(ctx, id, port)
}

func (l *local) WatchCluster(ctx context.Context, id string) iter.Seq2[berth.Cluster, error] {
	return stream(ctx, l, func(ctx context.Context) iter.Seq2[berth.Cluster, error] { return l.Host.WatchCluster(ctx, id) })
}

func (l *local) CreateCluster(ctx context.Context, s berth.ClusterSubmission) (berth.Cluster, error) {
	return here(ctx, l, func(ctx context.Context) (berth.Cluster, error) { return l.Host.CreateCluster(ctx, s) })
}
