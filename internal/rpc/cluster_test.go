package rpc

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

// filled gives all that a value has some value of its own.
func filled[T any]() T {
	var value T
	n := 0
	fill(reflect.ValueOf(&value).Elem(), &n)
	return value
}

func fill(v reflect.Value, n *int) {
	*n++
	switch v.Interface().(type) {
	case time.Duration:
		v.SetInt(int64(time.Duration(*n) * time.Second))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(int64(*n), 0).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("nothing fills a " + v.Type().String())
	}
}

// wired is a message as it comes out of the wire.
func wired[M proto.Message](t *testing.T, from, to M) M {
	t.Helper()
	text, err := proto.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(text, to); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestAClusterGoesOverTheWireWithAllThatItHas(t *testing.T) {
	want := filled[berth.Cluster]()
	want.Engine, want.Image = want.Spec.Engine, want.Spec.Image // they are the same
	if diff := cmp.Diff(want, toCluster(wired(t, fromCluster(&want), &pb.Cluster{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAClusterThatHasNothingYetStaysSo(t *testing.T) {
	want := berth.Cluster{
		ID: "k", CreatedAt: time.Unix(1, 0).UTC(), Head: berth.ClusterHead{Versions: map[string]string{}}, Groups: []berth.GroupStatus{}, Warnings: []string{},
		Spec: berth.ClusterSpec{Workers: []berth.ClusterGroup{}},
	}
	if diff := cmp.Diff(want, toCluster(wired(t, fromCluster(&want), &pb.Cluster{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOfAnIdleTimeoutThatIsLeftOpenThereIsTheDefault(t *testing.T) {
	if got := toClusterSpec(&pb.ClusterSpec{}).IdleTimeout; got != berth.DefaultIdleTimeout {
		t.Errorf("left open: %s", got)
	}
	if got := toClusterSpec(fromClusterSpec(&berth.ClusterSpec{})).IdleTimeout; got != 0 {
		t.Errorf("none: %s", got)
	}
}

// clusters is a Service that answers with what it was asked.
type clusters struct {
	berth.Service
	asked any
}

func (c *clusters) CreateCluster(_ context.Context, s berth.ClusterSubmission) (berth.Cluster, error) {
	c.asked = s
	return berth.Cluster{ID: "made"}, nil
}

func (c *clusters) Cluster(_ context.Context, id string) (berth.Cluster, error) {
	return berth.Cluster{}, berth.NoSuchCluster(id)
}

func (c *clusters) Clusters(_ context.Context, q berth.ClusterQuery) (berth.ClusterPage, error) {
	c.asked = q
	return berth.ClusterPage{Clusters: []berth.Cluster{{ID: "a"}, {ID: "b"}}, Next: "b"}, nil
}

func (c *clusters) WatchCluster(_ context.Context, id string) iter.Seq2[berth.Cluster, error] {
	return func(yield func(berth.Cluster, error) bool) {
		_ = yield(berth.Cluster{ID: id, State: berth.ClusterRunning}, nil) && yield(berth.Cluster{ID: id, State: berth.ClusterStopped}, nil)
	}
}

func (c *clusters) ScaleCluster(_ context.Context, s berth.ClusterScale) (berth.Cluster, error) {
	c.asked = s
	return berth.Cluster{ID: "scaled"}, nil
}

func (c *clusters) DeleteCluster(_ context.Context, id string) (berth.Cluster, error) {
	return berth.Cluster{ID: id, State: berth.ClusterStopping}, nil
}

func (c *clusters) ClusterAccess(context.Context, string) (berth.ClusterAccess, error) {
	return berth.ClusterAccess{CA: "ca", Certificate: "certificate", Key: "key"}, nil
}

func TestWhatIsAskedOfClustersArrives(t *testing.T) {
	there := &clusters{}
	_, handler := NewHandler(there, HandlerOptions{})
	server := serving(t, handler)
	client := NewClient(server.Client(), server.URL, "")

	submission := filled[berth.ClusterSubmission]()
	if c, err := client.CreateCluster(t.Context(), submission); err != nil || c.ID != "made" || !cmp.Equal(there.asked, any(submission)) {
		t.Errorf("made: %+v, %v: %s", c, err, cmp.Diff(any(submission), there.asked))
	}
	query := filled[berth.ClusterQuery]()
	if page, err := client.Clusters(t.Context(), query); err != nil || len(page.Clusters) != 2 || page.Next != "b" || !cmp.Equal(there.asked, any(query)) {
		t.Errorf("listed: %+v, %v: %s", page, err, cmp.Diff(any(query), there.asked))
	}
	scale := filled[berth.ClusterScale]()
	if c, err := client.ScaleCluster(t.Context(), scale); err != nil || c.ID != "scaled" || !cmp.Equal(there.asked, any(scale)) {
		t.Errorf("scaled: %+v, %v: %s", c, err, cmp.Diff(any(scale), there.asked))
	}
	if _, err := client.Cluster(t.Context(), "x"); berth.CodeOf(err) != berth.CodeNotFound || err.Error() != berth.NoSuchCluster("x").Error() {
		t.Errorf("of none: %v", err)
	}
	var states []berth.ClusterState
	for c, err := range client.WatchCluster(t.Context(), "x") {
		if err != nil || c.ID != "x" {
			t.Errorf("watched: %+v, %v", c, err)
		}
		states = append(states, c.State)
	}
	if len(states) != 2 || states[1] != berth.ClusterStopped {
		t.Errorf("watched: %v", states)
	}
	if c, err := client.DeleteCluster(t.Context(), "x"); err != nil || c.ID != "x" || c.State != berth.ClusterStopping {
		t.Errorf("deleted: %+v, %v", c, err)
	}
	if access, err := client.ClusterAccess(t.Context(), "x"); err != nil || access != (berth.ClusterAccess{CA: "ca", Certificate: "certificate", Key: "key"}) {
		t.Errorf("its keys: %+v, %v", access, err)
	}
}

func TestSoManyWorkersAreNotFewOverTheWire(t *testing.T) {
	there := &clusters{}
	_, handler := NewHandler(there, HandlerOptions{})
	server := serving(t, handler)
	if _, err := NewClient(server.Client(), server.URL, "").ScaleCluster(t.Context(), berth.ClusterScale{Count: 1<<32 + 1, Min: -1<<32 + 1, Max: 1<<32 + 1}); err != nil {
		t.Fatal(err)
	}
	if s := there.asked.(berth.ClusterScale); s.Count <= berth.MaxWorkers || s.Max <= berth.MaxWorkers || s.Min >= 0 {
		t.Errorf("it arrives as %+v", s)
	}
}

func TestACreationKeepsItsKeyWhenItIsMadeAgain(t *testing.T) {
	f := &failing{}
	if _, err := NewResuming(func(context.Context, berth.Service) (berth.Service, error) { return f, nil }, 0).CreateCluster(t.Context(), berth.ClusterSubmission{}); err != nil {
		t.Fatal(err)
	}
	if len(f.keys) != 2 || f.keys[0] == "" || f.keys[0] != f.keys[1] {
		t.Errorf("keys %q", f.keys)
	}
}

// failing is a Service that goes away at the first call.
type failing struct {
	berth.Service
	keys []string
}

func (f *failing) CreateCluster(_ context.Context, s berth.ClusterSubmission) (berth.Cluster, error) {
	if f.keys = append(f.keys, s.Key); len(f.keys) == 1 {
		return berth.Cluster{}, errGone
	}
	return berth.Cluster{}, nil
}
