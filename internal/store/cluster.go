package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// clusterBody is what who keeps a cluster writes of it.
type clusterBody struct {
	Caller  berth.Caller         `json:"caller"`
	Cluster berth.Cluster        `json:"cluster"`
	Keeping berth.ClusterKeeping `json:"keeping"`
}

// AddCluster stores a new cluster. CodeConflict when its owner has one of that
// name that has not ended.
func (s *Store) AddCluster(ctx context.Context, r *berth.ClusterRecord) error {
	body, err := json.Marshal(clusterBody{r.Caller, r.Cluster, r.Keeping})
	if err != nil {
		return s.explain("write", err)
	}
	wanted, err := json.Marshal(&r.Wanted)
	if err != nil {
		return s.explain("write", err)
	}
	c := &r.Cluster
	result, err := s.write.ExecContext(ctx, "INSERT INTO clusters (id, key, owner, name, named, infrastructure, live, wanted, body) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT DO NOTHING",
		c.ID, r.Key, c.Owner, c.Name, c.Name, c.Infrastructure, wanted, body)
	if err != nil {
		return s.explain("write", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return berth.Errorf(berth.CodeConflict, "there is a cluster %s already: berth cluster delete %s, or choose another name", c.Name, c.Name)
	}
	return nil
}

// Cluster returns a cluster by its id. CodeNotFound when there is none.
func (s *Store) Cluster(ctx context.Context, id string) (berth.ClusterRecord, error) {
	return s.oneCluster(ctx, id, "WHERE id = ?", id)
}

// ClusterByKey returns the cluster that was made with an idempotency key.
// CodeNotFound when there is none.
func (s *Store) ClusterByKey(ctx context.Context, key string) (berth.ClusterRecord, error) {
	return s.oneCluster(ctx, key, "WHERE key = ?", key)
}

// ClusterNamed returns of the clusters of a name that a caller may see the one to
// mean by it: one that has not ended, then the caller's own, then the newest.
// CodeNotFound when there is none.
func (s *Store) ClusterNamed(ctx context.Context, name string, caller berth.Caller) (berth.ClusterRecord, error) {
	where, args := visibleTo(caller)
	where, args = append(where, "name = ?"), append(args, name, caller.Name)
	return s.oneCluster(ctx, name, "WHERE "+strings.Join(where, " AND ")+" ORDER BY live DESC, CASE WHEN owner = ? THEN 0 ELSE 1 END, id DESC LIMIT 1", args...)
}

// LiveCluster returns the cluster of an owner's name that has not ended.
// CodeNotFound when there is none.
func (s *Store) LiveCluster(ctx context.Context, owner, name string) (berth.ClusterRecord, error) {
	return s.oneCluster(ctx, name, "WHERE owner = ? AND named = ?", owner, name)
}

// Clusters lists the clusters that a caller may see, newest first.
func (s *Store) Clusters(ctx context.Context, q berth.ClusterQuery, caller berth.Caller) (berth.ClusterPage, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	where, args := visibleTo(caller)
	add := func(condition string, value any) { where, args = append(where, condition), append(args, value) }
	if !q.All {
		add("live = ?", 1)
	}
	if q.Infrastructure != "" {
		add("infrastructure = ?", q.Infrastructure)
	}
	if q.After != "" {
		add("id < ?", q.After)
	}
	records, err := s.clusters(ctx, "WHERE "+strings.Join(where, " AND ")+" ORDER BY id DESC LIMIT ?", append(args, q.Limit+1)...)
	page := berth.ClusterPage{Clusters: []berth.Cluster{}}
	for i := range records {
		if i == q.Limit {
			page.Next = page.Clusters[i-1].ID
			break
		}
		page.Clusters = append(page.Clusters, records[i].Shown())
	}
	return page, err
}

// ClustersOf returns the clusters of an infrastructure that have not ended.
func (s *Store) ClustersOf(ctx context.Context, infrastructure string) ([]berth.ClusterRecord, error) {
	return s.clusters(ctx, "WHERE infrastructure = ? AND live = 1 ORDER BY id", infrastructure)
}

// ClusterTasks returns the tasks of a cluster that have not ended, or of which
// something may be left in the infrastructure.
func (s *Store) ClusterTasks(ctx context.Context, id, infrastructure string) ([]berth.Task, error) {
	condition, values := s.dialect.label(berth.LabelCluster, id)
	part := "SELECT life FROM tasks WHERE live = %d AND infrastructure = ? AND " + condition // by an index each
	args := append([]any{infrastructure}, values...)
	lives, err := s.lives(ctx, fmt.Sprintf(part, 1)+" UNION ALL "+fmt.Sprintf(part, 2), append(args, args...)...)
	if err != nil {
		return nil, err
	}
	tasks := make([]berth.Task, 0, len(lives))
	for _, life := range lives {
		tasks = append(tasks, life.Task)
	}
	return tasks, nil
}

// CommitCluster stores how a cluster stands, under the lease of its
// infrastructure, unless that is the zero one.
func (s *Store) CommitCluster(ctx context.Context, lease berth.Lease, r *berth.ClusterRecord) error {
	body, err := json.Marshal(clusterBody{r.Caller, r.Cluster, r.Keeping})
	if err != nil {
		return s.explain("write", err)
	}
	return s.explain("write", s.underLease(ctx, lease, func(tx *transaction) error {
		if r.Cluster.State.Terminal() {
			_, err := tx.ExecContext(ctx, "UPDATE clusters SET body = ?, live = 0, named = NULL WHERE id = ?", body, r.Cluster.ID)
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE clusters SET body = ? WHERE id = ?", body, r.Cluster.ID)
		return err
	}))
}

// ScaleCluster stores how many workers a group is to have.
func (s *Store) ScaleCluster(ctx context.Context, id, group string, size berth.GroupSize) error {
	return s.changeWanted(ctx, id, func(w *berth.ClusterWanted) {
		if w.Sizes == nil {
			w.Sizes = map[string]berth.GroupSize{}
		}
		w.Sizes[group] = size
	})
}

// DeleteCluster stores that a cluster is to be gone, the first time.
func (s *Store) DeleteCluster(ctx context.Context, id string, now time.Time) error {
	return s.changeWanted(ctx, id, func(w *berth.ClusterWanted) {
		if w.DeletedAt == nil {
			w.DeletedAt = &now
		}
	})
}

func (s *Store) changeWanted(ctx context.Context, id string, change func(*berth.ClusterWanted)) error {
	return s.explain("write", s.underLease(ctx, berth.Lease{}, func(tx *transaction) error {
		// Two may change it at once; the row is theirs from the first write on.
		if _, err := tx.ExecContext(ctx, "UPDATE clusters SET live = live WHERE id = ?", id); err != nil {
			return err
		}
		var text []byte
		if err := tx.QueryRowContext(ctx, "SELECT wanted FROM clusters WHERE id = ?", id).Scan(&text); err != nil {
			return err
		}
		var wanted berth.ClusterWanted
		if err := json.Unmarshal(text, &wanted); err != nil {
			return err
		}
		change(&wanted)
		text, err := json.Marshal(&wanted)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE clusters SET wanted = ? WHERE id = ?", text, id)
		return err
	}))
}

func (s *Store) oneCluster(ctx context.Context, name, clause string, args ...any) (berth.ClusterRecord, error) {
	records, err := s.clusters(ctx, clause, args...)
	if err == nil && len(records) == 0 {
		err = berth.NoSuchCluster(name)
	}
	if err != nil {
		return berth.ClusterRecord{}, err
	}
	return records[0], nil
}

func (s *Store) clusters(ctx context.Context, clause string, args ...any) ([]berth.ClusterRecord, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT key, wanted, body FROM clusters "+clause, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer rows.Close()
	records := []berth.ClusterRecord{}
	for rows.Next() {
		var r berth.ClusterRecord
		var wanted, text []byte
		if err := rows.Scan(&r.Key, &wanted, &text); err != nil {
			return nil, s.explain("read", err)
		}
		var body clusterBody
		if err := json.Unmarshal(text, &body); err != nil {
			return nil, s.explain("read", err)
		}
		if err := json.Unmarshal(wanted, &r.Wanted); err != nil {
			return nil, s.explain("read", err)
		}
		r.Caller, r.Cluster, r.Keeping = body.Caller, body.Cluster, body.Keeping
		r.Wanted.Apply(&r.Cluster.Spec)
		records = append(records, r)
	}
	return records, s.explain("read", rows.Err())
}
