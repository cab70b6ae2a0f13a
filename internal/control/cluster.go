package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"strings"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/compute"
	"github.com/berth-run/berth/internal/compute/dask"
)

// clusterEngines are the engines of compute clusters.
var clusterEngines = map[string]compute.Engine{berth.EngineDask: dask.Engine{}}

func (h *Host) CreateCluster(ctx context.Context, s berth.ClusterSubmission) (berth.Cluster, error) {
	caller := h.caller(ctx)
	if err := s.Spec.Validate(); err != nil {
		return berth.Cluster{}, err
	}
	if s.Key == "" {
		s.Key = xid.New().String()
	}
	key := ownKey(caller, s.Key)
	if there, err := h.store.ClusterByKey(ctx, key); berth.CodeOf(err) != berth.CodeNotFound {
		return there.Cluster, err
	}
	if s.Spec.Name != "" {
		there, err := h.store.LiveCluster(ctx, caller.Name, s.Spec.Name)
		if err == nil {
			cluster := there.Shown()
			return h.reused(ctx, caller, &cluster, &s)
		}
		if berth.CodeOf(err) != berth.CodeNotFound {
			return berth.Cluster{}, err
		}
	}
	id := berth.NewClusterID(xid.New().String())
	entry, err := h.clusterHome(ctx, caller, &s.Spec, id)
	if err != nil {
		return berth.Cluster{}, err
	}
	if s.Spec.Name == "" {
		s.Spec.Name = s.Spec.Engine + "-" + id[len(id)-6:]
	}
	record := &berth.ClusterRecord{Key: key, Caller: caller, Cluster: berth.Cluster{
		ID: id, Name: s.Spec.Name, Engine: s.Spec.Engine, State: berth.ClusterStarting, Infrastructure: entry.Name, Image: s.Spec.Image, Owner: caller.Name,
		CreatedAt: time.Now().UTC(), Head: berth.ClusterHead{Versions: map[string]string{}}, Groups: []berth.GroupStatus{}, Warnings: []string{}, Spec: s.Spec,
	}}
	for _, g := range s.Spec.Workers {
		record.Cluster.Groups = append(record.Cluster.Groups, berth.GroupStatus{Name: g.Name, Wanted: g.Least(), Lost: map[string]int{}, Versions: map[string]string{}})
	}
	if err := h.store.AddCluster(ctx, record); err != nil {
		if there, wrong := h.store.ClusterByKey(ctx, key); wrong == nil { // whose answer was lost
			return there.Cluster, nil
		}
		return berth.Cluster{}, err
	}
	h.clusters.Begin(id, entry.Name)
	return record.Cluster, nil
}

// reused returns a cluster that has the name that is asked for.
func (h *Host) reused(ctx context.Context, caller berth.Caller, there *berth.Cluster, s *berth.ClusterSubmission) (berth.Cluster, error) {
	taken := func(why string) error {
		return berth.Errorf(berth.CodeConflict, "there is a cluster %s already, which %s: berth cluster delete %s, or choose another name", there.Name, why, there.Name)
	}
	if !s.Reuse {
		return berth.Cluster{}, taken("has not ended")
	}
	if !caller.MayCancel(ofCluster(there)) {
		return berth.Cluster{}, needs(caller, berth.RoleWrite, "use clusters")
	}
	switch {
	case there.State == berth.ClusterStopping:
		return berth.Cluster{}, taken("is stopping")
	case there.Engine != s.Spec.Engine:
		return berth.Cluster{}, taken("is one of " + there.Engine)
	case s.Spec.Infrastructure != "" && there.Infrastructure != s.Spec.Infrastructure:
		return berth.Cluster{}, taken("is on " + there.Infrastructure)
	case s.Spec.Image != "" && there.Image != s.Spec.Image:
		return berth.Cluster{}, taken("runs " + there.Image)
	}
	return h.Cluster(ctx, there.ID)
}

// clusterHome chooses the infrastructure of a cluster, completes it with what that
// says, and looks whether it could run there.
func (h *Host) clusterHome(ctx context.Context, caller berth.Caller, s *berth.ClusterSpec, id string) (berth.InfrastructureConfig, error) {
	head := s.TaskSpec(s.Head, 0, id)
	entry, _, err := h.placed(ctx, caller, &head)
	if err != nil {
		return entry, err
	}
	if entry.Kind != berth.KindKube {
		return entry, berth.Errorf(berth.CodeUnsupported, "infrastructure %s is of kind %s: compute clusters need one of kind kube", entry.Name, entry.Kind)
	}
	if err := h.start(ctx, entry.Name); err != nil {
		return entry, err
	}
	if err := h.engine.Takes(ctx, entry.Name); err != nil {
		return entry, err
	}
	s.Infrastructure = entry.Name
	groups := []*berth.ClusterGroup{&s.Head}
	for i := range s.Workers {
		groups = append(groups, &s.Workers[i])
	}
	for _, g := range groups {
		spec := s.TaskSpec(*g, 0, id)
		spec = completed(&spec, &entry)
		g.CPU, g.Memory = spec.CPU, spec.Memory
		clusterEngines[s.Engine].Head(&berth.Cluster{ID: id, Spec: *s}, &spec) // what a worker has besides makes no difference here
		if err := spec.Validate(); err != nil {
			return entry, err
		}
		if _, err := h.engine.Fits(ctx, entry.Name, spec); err != nil {
			return entry, clusterRefused(entry.Name, g.Name, err)
		}
	}
	secrets, err := h.engine.Secrets(entry.Name)
	if err != nil {
		return entry, err
	}
	if err := secrets.CreateSecret(ctx, berth.ClusterSecretName(id), nil, nil, true); err != nil {
		err = told(err, "infrastructure %s can't keep the keys of a cluster", entry.Name)
		if berth.Lasting(err) {
			return entry, err // out of reach it may be only now
		}
	}
	return entry, nil
}

// clusterRefused says of which group the pods would not be taken.
func clusterRefused(infrastructure, group string, err error) error {
	var known *berth.Error
	if !errors.As(err, &known) || known.Diagnosis == nil {
		return err
	}
	return dataError(known.Code, known.Diagnosis, "infrastructure %s would not take the pods of group %s of this cluster", infrastructure, group)
}

// ofCluster is what rights are asked for with: those to a cluster are those to a
// task.
func ofCluster(c *berth.Cluster) *berth.Task {
	return &berth.Task{Owner: c.Owner, Infrastructure: c.Infrastructure}
}

// visibleCluster returns a cluster if the caller may see it. To everybody else it
// is as if there were none.
func (h *Host) visibleCluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	caller := h.caller(ctx)
	if !berth.IsClusterID(idOrName) {
		r, err := h.store.ClusterNamed(ctx, idOrName, caller)
		return h.presented(&r), err
	}
	r, err := h.store.Cluster(ctx, idOrName)
	if err == nil && !caller.MaySee(ofCluster(&r.Cluster)) {
		return berth.Cluster{}, berth.NoSuchCluster(idOrName)
	}
	return h.presented(&r), err
}

// ownedCluster returns a cluster that a caller may change.
func (h *Host) ownedCluster(ctx context.Context, idOrName, what string) (berth.Cluster, error) {
	cluster, err := h.visibleCluster(ctx, idOrName)
	if err == nil {
		if caller := h.caller(ctx); !caller.MayCancel(ofCluster(&cluster)) {
			err = needs(caller, berth.RoleWrite, what)
		}
	}
	return cluster, err
}

func (h *Host) Cluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	cluster, err := h.visibleCluster(ctx, idOrName)
	if err != nil || cluster.State.Terminal() {
		return cluster, err
	}
	h.settleClusters(ctx, cluster)
	return h.visibleCluster(ctx, cluster.ID)
}

func (h *Host) Clusters(ctx context.Context, q berth.ClusterQuery) (berth.ClusterPage, error) {
	page, err := h.store.Clusters(ctx, q, h.caller(ctx))
	if err != nil || len(page.Clusters) == 0 {
		return page, err
	}
	h.settleClusters(ctx, page.Clusters...)
	page, err = h.store.Clusters(ctx, q, h.caller(ctx))
	for i := range page.Clusters {
		page.Clusters[i] = h.withDashboard(page.Clusters[i])
	}
	return page, err
}

// settleClusters waits until clusters that are kept here were looked at once.
func (h *Host) settleClusters(ctx context.Context, clusters ...berth.Cluster) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for i := range clusters {
		h.clusters.Settle(ctx, clusters[i].ID, clusters[i].Infrastructure)
	}
}

func (h *Host) WatchCluster(ctx context.Context, idOrName string) iter.Seq2[berth.Cluster, error] {
	return func(yield func(berth.Cluster, error) bool) {
		cluster, err := h.visibleCluster(ctx, idOrName)
		if err != nil {
			yield(cluster, err)
			return
		}
		changed, stop := h.clusters.Watch(cluster.ID)
		defer stop()
		for {
			if cluster, err = h.visibleCluster(ctx, cluster.ID); !yield(cluster, err) || err != nil || cluster.State.Terminal() {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(berth.Cluster{}, ctx.Err())
				return
			case <-h.engine.Ending():
				yield(berth.Cluster{}, ending())
				return
			}
		}
	}
}

func (h *Host) ScaleCluster(ctx context.Context, s berth.ClusterScale) (berth.Cluster, error) {
	cluster, err := h.ownedCluster(ctx, s.ID, "scale clusters")
	if err != nil {
		return cluster, err
	}
	if cluster.State == berth.ClusterStopping || cluster.State.Terminal() {
		return berth.Cluster{}, berth.Errorf(berth.CodeConflict, "cluster %s is %s: it can't be scaled any more", cluster.Name, cluster.State)
	}
	group, err := scaled(&cluster.Spec, &s)
	if err != nil {
		return berth.Cluster{}, err
	}
	size := berth.GroupSize{Count: group.Count, Min: group.Min, Max: group.Max, At: time.Now().UTC()}
	if err := h.store.ScaleCluster(ctx, cluster.ID, group.Name, size); err != nil {
		return berth.Cluster{}, err
	}
	if err := h.begun(ctx, &cluster); err != nil {
		return berth.Cluster{}, err
	}
	return h.visibleCluster(ctx, cluster.ID)
}

// scaled is a group of workers as it is to be.
func scaled(spec *berth.ClusterSpec, s *berth.ClusterScale) (*berth.ClusterGroup, error) {
	if s.Group == "" && len(spec.Workers) == 1 {
		s.Group = spec.Workers[0].Name
	}
	var names []string
	var group *berth.ClusterGroup
	most := 0
	for i := range spec.Workers {
		g := spec.Workers[i]
		names = append(names, g.Name)
		if g.Name == s.Group {
			if g.Count, g.Min, g.Max = s.Count, 0, 0; s.Adaptive {
				g.Count, g.Min, g.Max = 0, s.Min, s.Max
				if s.Max == 0 {
					return nil, berth.Errorf(berth.CodeInvalid, "worker group %s: at most %d workers: to have none, scale it to 0", g.Name, s.Max)
				}
			}
			group = &g
		}
		most += g.Most()
	}
	switch {
	case group == nil && s.Group == "":
		return nil, berth.Errorf(berth.CodeInvalid, "the cluster has several groups of workers: choose one with --group %s", strings.Join(names, "|"))
	case group == nil:
		return nil, berth.Errorf(berth.CodeInvalid, "the cluster has no group of workers %q: it has %s", s.Group, strings.Join(names, ", "))
	}
	if err := group.ValidateSize(); err != nil {
		return nil, err
	}
	if most > berth.MaxWorkers {
		return nil, berth.Errorf(berth.CodeInvalid, "%d workers in all groups: a cluster has at most %d", most, berth.MaxWorkers)
	}
	return group, nil
}

// begun sees to it that what is wanted of a cluster is done.
func (h *Host) begun(ctx context.Context, c *berth.Cluster) error {
	if h.fleet == nil {
		if err := h.start(ctx, c.Infrastructure); err != nil {
			return err
		}
	}
	h.clusters.Nudge(c.ID, c.Infrastructure)
	return nil
}

func (h *Host) DeleteCluster(ctx context.Context, idOrName string) (berth.Cluster, error) {
	cluster, err := h.ownedCluster(ctx, idOrName, "delete clusters")
	if err != nil || cluster.State.Terminal() {
		return cluster, err
	}
	if err := h.store.DeleteCluster(ctx, cluster.ID, time.Now().UTC()); err != nil {
		return berth.Cluster{}, err
	}
	if err := h.begun(ctx, &cluster); err != nil {
		return berth.Cluster{}, fmt.Errorf("%w (that it is to be gone is stored)", err)
	}
	return h.visibleCluster(ctx, cluster.ID)
}

func (h *Host) ClusterAccess(ctx context.Context, idOrName string) (berth.ClusterAccess, error) {
	cluster, err := h.ownedCluster(ctx, idOrName, "connect to clusters")
	if err != nil {
		return berth.ClusterAccess{}, err
	}
	if cluster.State == berth.ClusterStopping || cluster.State.Terminal() {
		return berth.ClusterAccess{}, berth.Errorf(berth.CodeConflict, "cluster %s is %s", cluster.Name, cluster.State)
	}
	return h.clusters.Access(ctx, &cluster)
}

func (h *Host) DialCluster(ctx context.Context, idOrName string, port berth.ClusterPort) (net.Conn, error) {
	cluster, err := h.ownedCluster(ctx, idOrName, "connect to clusters")
	if err != nil {
		return nil, err
	}
	if conn := h.offered(ctx, &cluster, port); conn != nil {
		return conn, nil
	}
	conn, err := h.clusters.Dial(ctx, &cluster, port)
	if err == nil && port == berth.ClusterScheduler {
		h.dialled.forwarded.Add(1)
	}
	return conn, err
}
